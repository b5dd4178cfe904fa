"""The real, unmodified tritonclient against `forebay serve` in a process of its own."""
