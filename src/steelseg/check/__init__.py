"""Checks of parameters before any work is done."""
