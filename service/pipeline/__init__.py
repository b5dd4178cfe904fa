"""Slots, the three stage threads, and delivery."""
