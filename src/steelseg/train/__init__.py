"""Resumable training of one fold."""
