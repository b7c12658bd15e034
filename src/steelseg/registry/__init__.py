"""The model that others take away."""
