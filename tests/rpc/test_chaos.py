"""Streams that do anything in any order, on a device that fails at times: surviving ones get exactly their answers."""

import asyncio

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import ExecutionError
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, real_server, row, simulated

GOOD = st.tuples(st.just("frame"), st.sampled_from([None, 0.0, 0.01, 5000.0]))
BAD = st.tuples(st.just("bad frame"), st.sampled_from([b"", b"x", bytes(65)]))
PAUSE = st.tuples(st.just("pause"), st.integers(0, 5))
ENDINGS = st.sampled_from(["half-close", "half-close", "half-close", "cancel", "second open", "garbage"])
SCRIPTS = st.tuples(
    st.sampled_from([pb.DELIVERY_EVERY, pb.DELIVERY_LATEST]),
    st.integers(1, 20),
    st.lists(st.one_of(GOOD, GOOD, BAD, PAUSE), max_size=30),
    ENDINGS,
)


async def play(running, number, script):
    """Play one client; return its own list of sent frames, and its answers."""
    delivery, window, actions, ending = script
    stream = await running.open(stream_id=f"camera {number}", delivery=delivery, max_in_flight=window)
    reader = asyncio.create_task(stream.drain())
    sent = await send(stream, actions)
    match ending:
        case "half-close":
            await stream.half_close()
        case "cancel":
            stream.call.cancel()
        case "second open":
            await stream.send_open()
        case "garbage":
            await stream.send_bytes(b"\xff\xff\xff")
    return ending, sent, await reader


async def send(stream, actions):
    sent = []
    for seq, (action, value) in enumerate(actions):
        if action == "pause":
            for _ in range(value):
                await asyncio.sleep(0)
            continue
        sent.append((seq, action))
        if action == "frame":
            await stream.send(seq, **({} if value is None else {"latency_budget_ms": value}))
        else:
            await stream.send(seq, payload=value)
    return sent


def check(ending, sent, results):
    answered = [r.seq for r in results]
    if ending == "cancel":
        assert answered == [seq for seq, _ in sent][: len(answered)]
        return
    assert answered == [seq for seq, _ in sent]
    for (seq, action), result in zip(sent, results, strict=True):
        code = result.status.code
        assert (action == "bad frame") == (code == pb.STATUS_INVALID)
        assert bool(result.tensors) == (code == pb.STATUS_OK)
        assert bool(result.status.message) == (code != pb.STATUS_OK)
        if code == pb.STATUS_OK:
            assert result.tensors[0].data == row(seq)
        t = result.timings
        parts = (t.receive_us, t.decode_us, t.queue_us, t.h2d_us, t.execute_us, t.d2h_us, t.deliver_us)
        assert sum(parts) == t.server_total_us


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=6),
    faults=st.sets(st.tuples(st.sampled_from(["copy_h2d", "execute", "copy_d2h"]), st.integers(0, 20)), max_size=4),
    permits=st.sampled_from([3, 16, 64]),
)
def test_every_client_that_stays_gets_exactly_its_answers_in_order(tmp_path_factory, scripts, faults, permits):
    root = simulated(tmp_path_factory.mktemp("models"), instances=2)

    @on_loop
    async def run():
        devices = SimulatedDevices()
        with structlog.testing.capture_logs() as logs:
            async with real_server(root, devices=devices, permits=permits) as running:
                devices.devices[0].arm(FaultPlan(fail=dict.fromkeys(faults, ExecutionError("as the test asks"))))
                plays = [play(running, number, script) for number, script in enumerate(scripts)]
                for played in await asyncio.gather(*plays):
                    check(*played)
        assert devices.devices[0].races == ()
        assert {entry["event"] for entry in logs if entry["log_level"] == "error"} <= {"batch failed"}

    run()
