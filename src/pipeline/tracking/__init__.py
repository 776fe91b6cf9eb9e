"""Tracking: the boundary to MLflow, which shows what is recorded on disk and is never waited for."""
