"""The real, unmodified tritonclient against `forebay serve` in a separate process."""
