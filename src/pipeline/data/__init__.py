"""Data: sources and file formats, what turns a name into arrays, and the arrays into splits."""
