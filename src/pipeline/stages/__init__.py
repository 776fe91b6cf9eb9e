"""Stages: one file each, `run(config, workspace)`; the pipeline, read from left to right."""
