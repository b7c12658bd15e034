"""Defect segmentation on steel surfaces. Imports nothing, so that every module stands alone."""
