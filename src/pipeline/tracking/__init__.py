"""The MLflow boundary: MLflow shows what the pipeline recorded on disk; it is never waited for."""
