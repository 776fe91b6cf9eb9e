"""Data: where raw images come from, and how they become arrays."""
