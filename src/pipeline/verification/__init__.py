"""Verification: disk and MLflow, held against the digests that were recorded, and repaired."""
