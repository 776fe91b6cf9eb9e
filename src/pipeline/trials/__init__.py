"""One trial: the pipeline with other values in a throwaway workspace that shares DVC's cache."""
