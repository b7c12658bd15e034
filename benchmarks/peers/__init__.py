"""What a user would pick instead, measured side by side: `python -m benchmarks.peers ROW`."""
