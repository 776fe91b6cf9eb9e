"""Processes: forked from processes that have everything imported, ended with their parents, and locked."""
