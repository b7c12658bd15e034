"""Faults done to the pipeline on purpose: kills, damage, a full disk, a store out of reach."""
