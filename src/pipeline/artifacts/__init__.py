"""Artifacts: the files that stages hand to each other, where they are, and how they are written and read."""
