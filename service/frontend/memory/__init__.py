"""Shared memory of clients: regions of system and CUDA memory, and their users."""
