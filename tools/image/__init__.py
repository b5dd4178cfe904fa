"""Programs that run inside an image while it is built."""
