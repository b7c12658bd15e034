"""Observers: they change no output, so no stage lists them as deps."""
