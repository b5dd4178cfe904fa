"""The trace of a lane whose device copies and computes at once, in virtual time: exact to the microsecond."""

import json

from forebay_server.engines.device_simulated import CopyCosts
from forebay_server.service.journal.events import Journal
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.timeline import trace_chunks
from tests.support.lane import LaneDriver
from tests.support.observing import MS, check_format, lanes


class Former:
    """Listens to the lane and does nothing about it."""

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns):
        pass

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        pass


def test_three_stages_of_successive_batches_overlap_as_they_did_on_the_device():
    """Copies of 3 ms and executions of 6 ms, four batches enqueued at once."""
    lane = LaneDriver(4, engine_options={"alpha_ms": "6"}, cost=CopyCosts(copy_latency_ns=3 * MS))
    lane.pipeline.d2h.journal, lane.pipeline.d2h.listener = Journal(), Former()
    observer = Observer(lane.pipeline.d2h.journal, lane.clock)
    begin_ns = lane.clock.now_ns()
    for _ in range(4):
        lane.form(rows=1)
    for stage in ("h2d", "execute", "d2h"):
        for _ in range(4):
            lane.step(stage)
    lane.check_answers()
    observer.tick()
    document = json.loads("".join(trace_chunks(observer, (lane.clock.now_ns() - begin_ns) / 1e9, lane.clock.now_ns())))
    check_format(document)
    slices = {stage: [(start / 1e3, end / 1e3) for start, end, _ in found] for stage, found in lanes(document).items()}
    assert slices == {
        "h2d": [(0, 3), (3, 6), (6, 9), (9, 12)],
        "execute": [(3, 9), (9, 15), (15, 21), (21, 27)],
        "d2h": [(9, 12), (15, 18), (21, 24), (27, 30)],
    }
    lane.close()
