"""Batch scoring of any number of images."""
