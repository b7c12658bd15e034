"""A web page for trying the model."""
