"""Sweeps: many trials, planned or searched for, and launched side by side."""
