"""What a quality engineer asks: verdicts, how many errors they make, and how sure that is."""
