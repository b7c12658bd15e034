"""The embedded sample: a synthetic data set."""
