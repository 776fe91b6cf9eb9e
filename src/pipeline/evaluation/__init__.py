"""Evaluation: how good a model's predictions are, in numbers."""
