"""What the stages hand to each other: where each artifact lies, and how it is written and read."""
