"""Derives a model's configuration where it is not written: from metadata, shapes and a file of labels."""
