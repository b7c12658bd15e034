"""Speed, side by side: our way and another, in turns, as `make bench` prints it."""
