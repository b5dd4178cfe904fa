"""Metrics, timelines and the admin port."""
