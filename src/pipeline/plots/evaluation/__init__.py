"""The figures of an evaluation: each module of this folder is one, in a PNG file of its name."""
