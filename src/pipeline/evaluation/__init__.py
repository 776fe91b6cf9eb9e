"""Judging a trained model: what its predictions are worth, in numbers and in pictures."""
