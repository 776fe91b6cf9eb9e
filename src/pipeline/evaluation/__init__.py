"""Evaluation: what a model's predictions are worth, in numbers."""
