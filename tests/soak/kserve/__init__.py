"""KServe's own client against `forebay serve` in a separate process."""
