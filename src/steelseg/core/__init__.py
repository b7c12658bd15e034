"""Shared basics of all stages: errors, parameters, files, array types."""
