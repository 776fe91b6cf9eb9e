"""Reproduction: a past run is rebuilt from what is recorded of it, and compared with it link by link."""
