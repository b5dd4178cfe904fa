"""Tests that take minutes, or an environment that does: only `make test-soak` runs them."""
