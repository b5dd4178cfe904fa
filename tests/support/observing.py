"""Builders for the data path's records to an observer."""

from collections import defaultdict
from itertools import pairwise

from forebay_server.service.journal.events import BatchEvent, FrameEvent, Journal
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.observe.observer import Observer
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Timeline
from forebay_server.service.worker_pool import WorkerPool
from tests.support.clock import ManualClock

MS = 1_000_000
SECOND = 1_000_000_000


class Observed:
    """A journal with its observer on a manual clock."""

    def __init__(self):
        self.clock = ManualClock(1_000 * SECOND)
        self.journal = Journal()
        self.observer = Observer(self.journal, self.clock)

    def open(self, name="camera", model="detector", version="1", **more):
        return self.journal.open(name, model, version, **more)

    def frame(
        self,
        record,
        total_ms=20.0,
        *,
        outcome=None,
        deadline_ms=None,
        capture_us=0,
        execute_ms=8.0,
        batch_id=0,
        trace=None,
        size=(0, 0),
        found=-1,
    ):
        """A frame whose result is built now."""
        built_ns = self.clock.now_ns()
        received_ns = built_ns - int(total_ms * MS)
        timeline = Timeline(received_ns=received_ns, built_ns=built_ns, readable_ns=built_ns - MS, batch_id=batch_id)
        if outcome is None:
            timeline.validated_ns, timeline.admitted_ns = received_ns + 10_000, received_ns + 20_000
            timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns = 100_000, int(execute_ms * MS), 50_000
        deadline_ns = None if deadline_ms is None else received_ns + int(deadline_ms * MS)
        self.journal.frames.append(
            FrameEvent(record, timeline, outcome, deadline_ns, capture_us, trace, size=size, found=found)
        )

    def batch(self, start_ms, *, rows=4, label="detector.1", lane=0, batch_id=1, execute_ms=8.0):
        """A batch that began to upload `start_ms` after the clock's beginning."""
        upload_ns = 1_000 * SECOND + int(start_ms * MS)
        execute_ns = upload_ns + MS
        end_ns = execute_ns + int(execute_ms * MS)
        self.journal.batches.append(
            BatchEvent(
                label,
                lane,
                batch_id,
                rows,
                rows,
                upload_ns,
                upload_ns,
                execute_ns,
                execute_ns,
                end_ns,
                end_ns,
                end_ns + MS,
            )
        )

    def tick(self, after_ms=250):
        self.clock.advance(after_ms * MS)
        self.observer.tick()


def gauges_of(versions):
    """Gauges of a server with `versions`, no request and a closed worker pool."""
    pool = WorkerPool(2, on_fatal=lambda _: None)
    pool.close()
    return Gauges(lambda: versions, pool, Permits(256), lambda: True)


def no_gauges():
    """Gauges of a server without models."""
    return gauges_of([])


def lanes(document):
    """Slices by process and thread, and the threads' names."""
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in document["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    slices = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            slices[names[event["pid"], event["tid"]]].append((event["ts"], event["ts"] + event["dur"], event["args"]))
    return slices


PHASES = {"M", "X", "b", "e"}
METADATA = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}


def check_format(document):
    """The document is in the JSON object format of the Trace Event specification, as far as Forebay uses it.

    Each event has the fields of its phase, slices of one thread nest, asynchronous slices nest and end, and every
    referenced process and thread has a name.
    """
    assert set(document) <= {"traceEvents", "displayTimeUnit", "otherData", "metadata"}
    assert document.get("displayTimeUnit", "ms") in ("ms", "ns")
    opened, named, used = defaultdict(list), set(), set()
    slices = defaultdict(list)
    for event in document["traceEvents"]:
        assert event["ph"] in PHASES
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event.get("args", {}), dict)
        if event["ph"] == "M":
            assert METADATA[event["name"]] in event["args"]
            named.add((event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else 0))
            continue
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        assert isinstance(event["cat"], str)
        used.add(("process_name", event["pid"], 0))
        if event["ph"] == "X":
            assert event["dur"] >= 0
            used.add(("thread_name", event["pid"], event["tid"]))
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "b":
            opened[event["cat"], event["id"]].append((event["name"], event["ts"]))
        else:
            name, start = opened[event["cat"], event["id"]].pop()
            assert name == event["name"]
            assert start <= event["ts"]
    assert not any(opened.values())
    assert used <= named
    for thread in slices.values():
        assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(sorted(thread)))
