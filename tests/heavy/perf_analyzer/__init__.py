"""The real perf_analyzer against `forebay serve` in a separate process."""
