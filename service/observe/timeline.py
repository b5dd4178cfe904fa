"""The last seconds of the pipeline, as a trace for Chrome and Perfetto and as a strip for the page.

Format: JSON object format of the Trace Event specification. One process per lane with three threads (h2d, execute, d2h)
whose slices are batches, one process for streams with an asynchronous slice per frame. Times are microseconds from the
beginning of the trace.

A device reports how long operations took and in which order they ended; their position on the host's clock is known to
some microseconds, or as late as the d2h thread was. Slices of one thread never overlap: a device stream does one
operation at a time, so a start before the end of the previous slice is moved to that end.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

from forebay_server.service.journal.events import BatchEvent
from forebay_server.service.observe.frames import (
    ADMITTED,
    BUILT,
    OUTCOME,
    OUTCOMES,
    READABLE,
    RECEIVED,
    UID,
)
from forebay_server.service.observe.observer import Observer

MAX_SECONDS = 60.0
MAX_TRACE_FRAMES = 20_000
STAGE_THREADS = {"h2d": 1, "execute": 2, "d2h": 3}
STREAMS_PROCESS = 1
FIRST_LANE_PROCESS = 10

_encode = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make a new one for each event

Slice = tuple[str, int, int]
"""Stage, start and end in ns."""
Event = dict[str, Any]


def slices(batch: BatchEvent) -> tuple[Slice, Slice, Slice]:
    """Return the start and end of each stage of a batch."""
    return (
        ("h2d", batch.upload_start_ns, batch.upload_end_ns),
        ("execute", batch.execute_start_ns, batch.execute_end_ns),
        ("d2h", batch.download_start_ns, batch.download_end_ns),
    )


def trace_chunks(observer: Observer, seconds: float, now_ns: int) -> Generator[str, None, None]:
    """Yield the trace in pieces of one event, so that no call keeps the interpreter busy for long."""
    since_ns = now_ns - int(min(max(seconds, 0.0), MAX_SECONDS) * 1e9)
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    separator = ""
    for event in trace_events(observer, since_ns):
        yield separator + _encode(event)
        separator = ",\n"
    yield "\n]}\n"


def trace_events(observer: Observer, since_ns: int) -> Iterator[Event]:
    """Yield the events of everything that ended at `since_ns` or later."""
    batches = [batch for batch in observer.batches.copy() if batch.download_end_ns >= since_ns]
    frames = observer.frames.since(since_ns, MAX_TRACE_FRAMES)
    starts = [batch.upload_start_ns for batch in batches]
    origin_ns = min([since_ns, *starts, *frames[RECEIVED].tolist()])
    yield from _batch_events(batches, origin_ns)
    yield {"ph": "M", "name": "process_name", "pid": STREAMS_PROCESS, "tid": 0, "args": {"name": "streams"}}
    for row in frames.T.tolist():
        yield from _frame_events(row, observer.name_of(row[UID]), origin_ns)


def _batch_events(batches: Iterable[BatchEvent], origin_ns: int) -> Iterator[Event]:
    processes: dict[tuple[str, int], int] = {}
    busy_until: dict[tuple[int, int], int] = {}
    for batch in batches:
        lane = (batch.label, batch.lane)
        if lane not in processes:
            processes[lane] = FIRST_LANE_PROCESS + len(processes)
            yield from _names(processes[lane], f"{batch.label} lane {batch.lane}")
        process = processes[lane]
        arguments = {"batch": batch.id, "rows": batch.rows, "executed_rows": batch.executed_rows}
        for stage, start_ns, end_ns in slices(batch):
            thread = STAGE_THREADS[stage]
            start_ns = max(start_ns, busy_until.get((process, thread), start_ns))  # noqa: PLW2901 - see the module
            end_ns = max(start_ns, end_ns)  # noqa: PLW2901
            busy_until[process, thread] = end_ns
            yield {
                "ph": "X",
                "cat": "batch",
                "name": f"{stage} of {batch.rows}",
                "pid": process,
                "tid": thread,
                "ts": _us(start_ns - origin_ns),
                "dur": _us(end_ns - start_ns),
                "args": arguments,
            }


def _names(process: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
    for stage, thread in STAGE_THREADS.items():
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": stage}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": {"sort_index": thread}}


def _frame_events(row: list[int], name: str, origin_ns: int) -> Iterator[Event]:
    """Yield a frame from read() to result, and inside it the time in the queue and on the device."""
    received, admitted, readable, built = row[RECEIVED], row[ADMITTED], row[READABLE], row[BUILT]
    outcome = OUTCOMES[row[OUTCOME]].value
    common: Event = {"cat": "frame", "pid": STREAMS_PROCESS, "tid": row[UID], "id": f"{row[UID]:x}.{received:x}"}
    spans = [(name or f"stream {row[UID]}", received, built)]
    if admitted and readable >= admitted:
        spans.append(("queue and device", admitted, readable))
    for title, start_ns, _ in spans:
        yield {**common, "ph": "b", "name": title, "ts": _us(start_ns - origin_ns), "args": {"outcome": outcome}}
    for title, _, end_ns in reversed(spans):
        yield {**common, "ph": "e", "name": title, "ts": _us(end_ns - origin_ns)}


def strip(observer: Observer, since_ns: int, limit: int) -> list[list[int]]:
    """Return the latest batches for the page: lane, rows, then start and end of each stage in µs from `since_ns`."""
    lanes: dict[tuple[str, int], int] = {}
    rows = []
    newest_first = takewhile(lambda batch: batch.download_end_ns >= since_ns, reversed(observer.batches))
    for batch in reversed(list(islice(newest_first, limit))):
        lane = lanes.setdefault((batch.label, batch.lane), len(lanes))
        instants = [(instant - since_ns) // 1000 for _, *both in slices(batch) for instant in both]
        rows.append([lane, batch.rows, *instants])
    return rows


def _us(ns: int) -> float:
    return ns / 1000
