"""Train, evaluate and track an image classifier: Hydra configures, DVC caches, MLflow shows."""
