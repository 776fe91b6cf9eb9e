"""Figures of a sweep: PNG files, as wide as MLflow shows them, the same bytes for the same results."""
