"""Serving: use the trained model, from the shell and over HTTP."""
