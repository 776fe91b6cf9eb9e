"""Serving: the trained model answers."""
