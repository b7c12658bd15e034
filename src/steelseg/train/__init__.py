"""One fold, trained and resumable."""
