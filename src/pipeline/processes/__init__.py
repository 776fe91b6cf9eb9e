"""Processes: forked from one that has its imports done, ended with their parents, and locked."""
