"""Observers: they change no output and stand in no deps."""
