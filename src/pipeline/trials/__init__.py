"""Trials: runs of the pipeline with other values, in temporary workspaces that share DVC's cache."""
