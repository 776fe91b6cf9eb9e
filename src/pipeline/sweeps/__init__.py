"""Sweeps: many trials, planned before they start, run side by side, and what came of them."""
