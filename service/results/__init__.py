"""Converts model outputs to typed results. Runs in the worker pool."""
