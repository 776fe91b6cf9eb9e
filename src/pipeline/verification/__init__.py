"""Verification: compare files, MLflow and the registry with the recorded digests, and repair them."""
