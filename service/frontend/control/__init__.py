"""The Open Inference Protocol but for inference: metadata, repository, statistics, settings."""
