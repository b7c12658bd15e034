"""Formats of annotations: what `import` reads and `export` writes."""
