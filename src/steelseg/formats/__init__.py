"""Annotation formats that `import` reads and `export` writes."""
