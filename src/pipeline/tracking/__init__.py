"""Tracking: the interface to MLflow, which shows what is recorded on disk and never holds up a training."""
