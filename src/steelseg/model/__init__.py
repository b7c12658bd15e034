"""The segmentation network, its pretrained weights and its card."""
