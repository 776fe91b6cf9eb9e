"""Processes: forked from one that has its imports done, and ended with the one that started them."""
