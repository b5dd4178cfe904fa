"""Benchmarks of the parts and of the whole; a top layer that may import everything."""
