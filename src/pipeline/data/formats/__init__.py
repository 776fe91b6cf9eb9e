"""File formats: bytes that nobody vouches for, in; arrays, out."""
