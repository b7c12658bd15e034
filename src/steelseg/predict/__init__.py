"""Predicts masks and rows from images."""
