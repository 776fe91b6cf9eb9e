"""Many trials: planned or searched for, launched side by side."""
