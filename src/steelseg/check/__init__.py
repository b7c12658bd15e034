"""What can be refused before any work is done."""
