"""Devices and engines: what a batch runs on. Knows nothing of the service above it.

Concrete devices and engines are reached through `open_device()` and `open_engine()` only, so that a
vendor library is imported no earlier than it is needed.
"""
