"""Trials: one run of the pipeline with other values, in a temporary workspace that shares DVC's cache."""
