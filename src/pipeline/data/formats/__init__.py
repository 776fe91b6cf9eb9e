"""File formats: untrusted bytes in, arrays out."""
