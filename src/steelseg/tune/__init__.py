"""The search for rules and the honest score."""
