"""Registered models: logging, choosing and serving them."""
