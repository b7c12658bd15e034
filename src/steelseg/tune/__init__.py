"""The search for rules, and its cross-fitted score."""
