"""Backends: the arithmetic of the fit loop, one module for each backend of Keras."""
