"""Calls to a running server, for commands that ask it something."""
