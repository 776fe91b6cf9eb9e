"""Configuration: its schema, its composition from conf/, and its form as params.yaml."""
