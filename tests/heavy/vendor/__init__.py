"""Tests against the real vendors' libraries on a machine without a GPU, in an environment of their own."""
