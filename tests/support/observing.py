"""Builders for what the data path tells an observer."""

from collections import defaultdict

from service.observe.gauges import Gauges
from service.observe.journal import BatchEvent, Journal
from service.observe.observer import Observer
from service.request import Timeline
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
    ):
        """A frame whose result is built now."""
        built_ns = self.clock.now_ns()
        received_ns = built_ns - int(total_ms * MS)
        timeline = Timeline(received_ns=received_ns, built_ns=built_ns, readable_ns=built_ns - MS, batch_id=batch_id)
        if outcome is None:
            timeline.validated_ns, timeline.admitted_ns = received_ns + 10_000, received_ns + 20_000
            timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns = 100_000, int(execute_ms * MS), 50_000
        deadline_ns = None if deadline_ms is None else received_ns + int(deadline_ms * MS)
        self.journal.frames.append((record, timeline, outcome, deadline_ns, capture_us, trace))

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


class NoPool:
    busy_count = 1
    thread_count = 2
    waiting_count = 3


class NoPermits:
    count = 256
    taken_count = 7


def no_gauges():
    """Gauges of a server without models."""
    return Gauges(list, NoPool(), NoPermits(), lambda: True)


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
