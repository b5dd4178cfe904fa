"""Tests on a real GPU: `make test-gpu` or `python tests/gpu/run.py`.

A test that cannot run is skipped with its reason.
"""
