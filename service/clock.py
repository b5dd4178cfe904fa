"""The clock, re-exported: the service waits and measures through `engines.clock` only."""

from forebay_server.engines.clock import Clock, MonotonicClock

__all__ = ["Clock", "MonotonicClock"]
