"""Training: the fit loop and its parts."""
