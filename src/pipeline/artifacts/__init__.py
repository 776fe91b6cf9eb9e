"""Artifacts: the files that stages pass to each other, where they are, and how they are written and read."""
