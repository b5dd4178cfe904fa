"""What a model's configuration can be derived from, where it is not written: metadata, shapes, a file of labels."""
