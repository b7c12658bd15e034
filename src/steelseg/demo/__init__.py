"""A page to try the model."""
