"""The lane of virtual time computes the same times as the real stages on the simulated device."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.bench.virtual_lane import StageCosts, VirtualLane
from forebay_server.engines.device_simulated import CopyCosts
from forebay_server.service.request import Batch
from tests.support.lane import MAX_BATCH_SIZE, ROW_BYTES, LaneDriver

SLOTS = 4
COPY_NS = 100_000
COSTS = [
    StageCosts(alpha_ns, 200_000, h2d_ns=(COPY_NS, h2d_ns), d2h_ns=(COPY_NS, d2h_ns), jitter=0.0)
    for alpha_ns, h2d_ns, d2h_ns in ((3_000_000, 50_000, 5_000), (0, 800_000, 5_000), (0, 50_000, 800_000))
]


def enqueue_download(lane, batch):
    """The operations that the d2h stage enqueues, without its waiting."""
    slot, stream = lane.slots[batch.slot_index], lane.pipeline.d2h.device_stream
    stream.wait(slot.executed)
    stream.copy_d2h(slot.host_outputs[0], slot.current_outputs[0], batch.rows * ROW_BYTES)


def on_the_device(trace, costs):
    """When each batch of `(gap_ns, rows)` leaves compute and the download."""
    options = {"alpha_ms": str(costs.alpha_ns / 1e6), "beta_ms": str(costs.beta_ns / 1e6)}
    copies = CopyCosts(
        copy_latency_ns=COPY_NS,
        h2d_bytes_per_s=ROW_BYTES / costs.h2d_ns[1] * 1e9,
        d2h_bytes_per_s=ROW_BYTES / costs.d2h_ns[1] * 1e9,
    )
    lane = LaneDriver(SLOTS, engine_options=options, cost=copies, gather_below_bytes=1 << 20)
    lane.clock.advance(10**9)
    started_ns = lane.clock.now_ns()
    batches = []
    for gap_ns, rows in trace:
        lane.clock.advance(gap_ns)
        batches.append(lane.form(rows))
        lane.step("h2d")
        lane.step("execute")
        enqueue_download(lane, batches[-1])
    lane.pipeline.d2h.device_stream.sync()
    ends = {
        stage: [op.end_ns - started_ns for op in lane.device.history if op.queue == f"lane.{stage}"][-len(trace) :]
        for stage in ("execute", "d2h")
    }
    for _ in batches:
        lane.step("d2h")
    assert not lane.device.races
    lane.close()
    return ends["execute"], ends["d2h"]


def in_virtual_time(trace, costs):
    now_ns = 0
    lane = VirtualLane(0, costs, lambda: now_ns)
    for number, (gap_ns, rows) in enumerate(trace):
        now_ns += gap_ns
        lane.submit(Batch(number, 0, number, [], rows, rows, now_ns))
    compute = [event.at_ns for event in lane.events if not event.is_slot_freed]
    freed = [event.at_ns for event in lane.events if event.is_slot_freed]
    return compute, freed


@pytest.mark.parametrize("costs", COSTS, ids=["execution rules", "uploads rule", "downloads rule"])
@settings(max_examples=20)
@given(
    trace=st.lists(
        st.tuples(st.sampled_from([0, 100_000, 1_000_000, 6_000_000]), st.integers(1, MAX_BATCH_SIZE)),
        min_size=1,
        max_size=SLOTS,
    )
)
def test_batches_leave_compute_and_download_when_the_simulated_device_says(costs, trace):
    assert in_virtual_time(trace, costs) == on_the_device(trace, costs)
