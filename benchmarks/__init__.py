"""Benchmarks for `make bench`, which compare the pipeline with the plain script that it replaces."""
