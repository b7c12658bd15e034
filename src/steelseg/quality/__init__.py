"""Verdicts on images: how often they err, what can be promised, and how sure that is."""
