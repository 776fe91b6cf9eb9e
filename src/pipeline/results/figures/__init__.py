"""The figures of a sweep: PNG files as wide as MLflow shows them, the same bytes for the same results.

Each module of this folder with a function `draw` is one, in a file of its name.
"""
