"""Processes: forked from one that has its imports behind it, and ended with the one that started them."""
