"""Benchmarks of the CUDA pipeline; `python -m bench.gpu` runs them all on one GPU."""
