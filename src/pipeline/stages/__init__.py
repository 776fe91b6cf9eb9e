"""Stages: the steps of the pipeline, one module each, with a function `run(config, workspace)`."""
