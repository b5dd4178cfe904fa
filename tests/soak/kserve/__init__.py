"""KServe's own client against `forebay serve` in a process of its own."""
