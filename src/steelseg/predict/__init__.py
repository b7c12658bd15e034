"""From images to masks and rows."""
