"""A segmentation network, its metrics and its card."""
