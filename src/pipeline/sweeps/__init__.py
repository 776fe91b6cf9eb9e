"""Sweeps: many trials, planned or searched for, and run in parallel."""
