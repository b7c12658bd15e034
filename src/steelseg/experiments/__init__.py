"""Many runs through DVC's queue: k-fold, ablations, pseudo-labels."""
