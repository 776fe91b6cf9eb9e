"""Reproduction: a past run is rebuilt from its records, and the two are compared link by link."""
