"""The RPCs of the Open Inference Protocol without inference: metadata, repository, statistics, settings."""
