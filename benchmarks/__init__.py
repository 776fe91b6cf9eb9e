"""What `make bench` measures: the pipeline against the plain script that it replaces."""
