"""Sends a trace in real time: `python -m forebay_server.bench.trace_sender`, a process driven by `bench.real_time`.

In one interpreter with the former the sender's timers would be as late as the interpreter's lock is busy. Here a
request is nothing but its position in the trace, four bytes on standard output, at its instant. How late the timers
were is the probe that says whether the machine was quiet enough.

Standard input: the number of requests, their instants in nanoseconds from the start, and once `READY` was read the
instant of the start (CLOCK_MONOTONIC); all int64. Standard output: `READY`, the positions, `END`, and the lag of every
timer in nanoseconds (int64); all but the lags uint32.
"""

import argparse
import gc
import os
import sys
from array import array

from forebay_server.service.clock import MonotonicClock

READY = END = 0xFFFFFFFF
WORD = 4


def main() -> None:
    """Read the trace, send it, tell the lags."""
    argparse.ArgumentParser(prog="python -m forebay_server.bench.trace_sender", description=__doc__).parse_args()
    clock = MonotonicClock()
    source, sink = sys.stdin.buffer, sys.stdout.fileno()
    (count,) = array("q", source.read(8))
    instants = array("q", source.read(8 * count))
    lags_ns = array("q")
    gc.freeze()
    gc.disable()
    os.write(sink, array("I", [READY]).tobytes())
    (start_ns,) = array("q", source.read(8))
    position = 0
    while position < count:
        due_ns = start_ns + instants[position]
        now_ns = clock.now_ns()
        if now_ns < due_ns:
            clock.sleep_until(due_ns)
            now_ns = clock.now_ns()
            lags_ns.append(now_ns - due_ns)
        last = position + 1
        while last < count and start_ns + instants[last] <= now_ns:
            last += 1
        os.write(sink, array("I", range(position, last)).tobytes())
        position = last
    os.write(sink, array("I", [END]).tobytes())
    with os.fdopen(os.dup(sink), "wb") as out:
        out.write(lags_ns.tobytes())


if __name__ == "__main__":
    main()
