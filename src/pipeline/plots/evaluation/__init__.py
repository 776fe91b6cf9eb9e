"""Figures of an evaluation: each module draws one, a PNG file with the name of the module."""
