"""Verdicts on images: their error rates, the limits they can promise, and the uncertainty."""
