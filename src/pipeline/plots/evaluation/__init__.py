"""Figures of an evaluation: each module here is one, in a PNG file of its name."""
