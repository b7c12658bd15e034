"""Any number of images."""
