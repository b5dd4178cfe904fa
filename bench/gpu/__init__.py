"""Benchmarks of the CUDA pipeline; `python -m forebay_server.bench.gpu` runs them all on one GPU."""
