"""Plots: the style that figures share, and one file for each figure."""
