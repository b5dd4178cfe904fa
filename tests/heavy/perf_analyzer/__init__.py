"""perf_analyzer, the real one, against `forebay serve` in a process of its own."""
