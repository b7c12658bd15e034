"""From raw files to the cache."""
