"""Inference requests of the Open Inference Protocol, one by one and in streams."""
