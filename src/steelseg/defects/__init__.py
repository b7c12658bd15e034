"""Defects one by one: which are found, of what size."""
