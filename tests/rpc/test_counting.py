"""Every way a frame or a request can end, over every protocol, is one number in every place that counts.

ModelStatistics, nv_inference_request_failure by reason, forebay_frames_total by outcome, and the live page's table must
agree, for every part that can end it: the admission, the former, the engine, or the client that left.
"""

import asyncio

import numpy as np
import pytest

from forebay.wire import frames_pb2, inference_pb2
from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import ExecutionError
from tests.rpc.test_inference_statistics import get, samples
from tests.rpc.test_observe import Watcher
from tests.support import forms
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, simulated

EVERY = {"delivery": frames_pb2.DELIVERY_EVERY}
LATEST = {"delivery": frames_pb2.DELIVERY_LATEST}


def rows(**parameters):
    return request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8), parameters=parameters)


class Frames:
    """A stream of frames."""

    model = "sim"

    def __init__(self, running):
        self.running = running
        self._seq = 0
        self._stream = None

    async def send(self, payload=None, **parameters):
        if self._stream is None:
            delivery = LATEST if parameters.pop("delivery", None) == "latest" else EVERY
            self._stream = await self.running.open(model=self.model, **delivery)
        parameters.pop("delivery", None)
        self._seq += 1
        fields = {"latency_budget_ms": parameters["latency_budget_ms"]} if parameters else {}
        await self._stream.send(self._seq, payload, **fields)

    async def send_wrong(self):
        await self.send(b"short")

    async def answers(self, count):
        await self._stream.results(count)

    async def leave(self):
        if self._stream is not None:
            self._stream.call.cancel()


class Unary:
    """Requests, each a call."""

    def __init__(self, running):
        self._stub = stub_of(running)
        self._calls = []

    async def send(self, payload=None, **parameters):
        self._calls.append(self._stub.ModelInfer(rows(**parameters)))

    async def send_wrong(self):
        request = rows()
        request.raw_input_contents[0] = b"short"
        self._calls.append(self._stub.ModelInfer(request))

    async def answers(self, count):
        for _ in range(count):
            await self._calls.pop(0).code()

    async def leave(self):
        for call in self._calls:
            call.cancel()


class Stream:
    """Requests in one stream."""

    def __init__(self, running):
        self._call = stub_of(running).ModelStreamInfer()

    async def send(self, payload=None, **parameters):
        await self._call.write(rows(**parameters))

    async def send_wrong(self):
        request = rows()
        request.raw_input_contents[0] = b"short"
        await self._call.write(request)

    async def answers(self, count):
        for _ in range(count):
            await self._call.read()

    async def leave(self):
        self._call.cancel()


async def ok(client, running):
    for _ in range(3):
        await client.send()
    await client.answers(3)


async def invalid(client, running):
    await client.send_wrong()
    await client.answers(1)


async def failed(client, running, devices):
    devices.devices[0].arm(FaultPlan(fail={("execute", 1): ExecutionError("as the test asks")}))
    for _ in range(3):
        await client.send()
    await client.answers(3)


async def with_corrupt_scores(client, running):
    """Two frames whose typed results are made, and between them one that was executed and has none."""
    for score in (1.0, np.nan, 2.0):
        await client.send(np.full(ROW_BYTES // 4, score, np.float32).tobytes())
    await client.answers(3)


async def expired_at_admission(client, running):
    await client.send(latency_budget_ms=0.0)
    await client.answers(1)


async def of_a_client_that_left_a_typed_result(client, running):
    """Executed, for a client that has left meanwhile."""
    running.hold()
    await client.send(np.ones(ROW_BYTES // 4, np.float32).tobytes())
    await eventually(lambda: in_hand(running) == 1)
    await client.leave()
    await eventually(lambda: not running.server.frames.streams)
    running.release()


async def overloaded(client, running):
    """The server has two permits."""
    running.hold()
    for _ in range(2):
        await client.send()
    await eventually(lambda: running.server.permits.taken_count == 2)
    await client.send()
    await eventually(lambda: running.version().statistics.snapshot().fail.count == 1)
    running.release()
    await client.answers(3)


async def superseded(client, running):
    """How many are replaced is up to how many were bound when the next one came."""
    running.hold()
    for _ in range(8):
        await client.send(delivery="latest", latency_budget_ms=60_000.0)  # none expires, however long the test waits
    await eventually(lambda: running.version().statistics.snapshot().fail.count > 0)
    running.release()
    await client.answers(8)


async def cancelled(client, running):
    """Some are in the pipeline, others wait, when the client leaves."""
    running.hold()
    for _ in range(6):
        await client.send()
    await eventually(lambda: in_hand(running) == 6)
    await client.leave()
    await eventually(lambda: running.version().statistics.snapshot().fail.count > 0)
    running.release()
    await eventually(lambda: running.version().statistics.snapshot().fail.count == 6)


def in_hand(running):
    """Requests that came to the former and have not ended; a batch is one of them."""
    numbers = running.version().former.statistics()
    return numbers.pending_requests + numbers.in_flight


CASES = {
    ok: ({}, {"ok": 3}, {}),
    invalid: ({}, {"invalid": 1}, {"OTHER": 1}),
    failed: ({}, {"ok": 2, "failed": 1}, {"BACKEND": 1}),
    expired_at_admission: ({}, {"expired": 1}, {"REJECTED": 1}),
    overloaded: ({"permits": 2}, {"ok": 2, "overloaded": 1}, {"REJECTED": 1}),
    superseded: ({}, {"ok": 8, "superseded": 0}, {}),
    cancelled: ({}, {"cancelled": 6}, {"CANCELED": 6}),
}
TYPED = {"task": "classification", "datatype": "FP32"}
TYPED_CASES = {
    with_corrupt_scores: ({"ok": 2, "corrupt": 1}, {"BACKEND": 1}),
    of_a_client_that_left_a_typed_result: ({"cancelled": 1}, {"CANCELED": 1}),
}
NEVER = {
    (superseded, Unary): "calls have no order among each other, so none replaces another",
    (overloaded, Stream): "a stream has at most half of the permits",
}


async def told(running):
    """Failures by reason, outcomes and successes by metrics, and whether ModelStatistics has the same sums by now."""
    (told,) = (await stub_of(running).ModelStatistics(inference_pb2.ModelStatisticsRequest(name="sim"))).model_stats
    stats = told.inference_stats
    _, text = await get(running.server.admin_address)
    values = samples(text)
    labels = 'model="sim",version="1"'
    reasons = {
        reason: values[f'nv_inference_request_failure{{model="sim",reason="{reason}",version="1"}}']
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    outcomes = {
        name.partition('outcome="')[2].partition('"')[0]: value
        for name, value in values.items()
        if name.startswith("forebay_frames_total{") and 'model="sim"' in name and value
    }
    successes = values[f"nv_inference_request_success{{{labels}}}"]
    is_same = (stats.success.count, stats.fail.count) == (successes, sum(reasons.values()))
    return {reason: count for reason, count in reasons.items() if count}, outcomes, successes, is_same


async def page_of(running):
    """Frames of open streams that ended well, as a share of those that ended, by the rates of the live page."""
    watcher = await Watcher.open(running.server.admin_address)
    try:
        while True:
            name, event = await watcher.next()
            if name == "state":
                return sum(each["ok"] for each in event["streams"]) / sum(each["offered"] for each in event["streams"])
    finally:
        await watcher.close()


async def told_of_all(running, count):
    """As `told`, once it has every outcome: the observer counts at each tick, and a front end sends its at its own."""
    async with asyncio.timeout(HANG_GUARD_S):
        while True:
            *counts, is_same = await told(running)
            if is_same and sum(counts[1].values()) == count:
                return tuple(counts)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("case", TYPED_CASES, ids=lambda case: case.__name__)
@on_loop
async def test_a_typed_result_counts_as_it_ends(tmp_path, case):
    outcomes, reasons = TYPED_CASES[case]
    simulated(tmp_path, max_batch_size=1, **TYPED)
    async with real_server(tmp_path, devices=SimulatedDevices(), admin_address="127.0.0.1:0") as running:
        client = Frames(running)
        await case(client, running)
        assert await told_of_all(running, sum(outcomes.values())) == (reasons, outcomes, outcomes.get("ok", 0))
        counts = running.version().statistics.snapshot()
        assert (counts.rows, counts.executions) == (sum(outcomes.values()),) * 2
        assert counts.success.ns >= counts.queue.ns + counts.compute_infer.ns
        await client.leave()


@pytest.mark.parametrize("protocol", [Frames, Unary, Stream])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@on_loop
async def test_whatever_ends_is_one_number_everywhere(tmp_path, case, protocol):
    settings, outcomes, reasons = CASES[case]
    if (case, protocol) in NEVER:
        pytest.skip(NEVER[case, protocol])
    simulated(tmp_path, max_batch_size=1)
    devices = SimulatedDevices()
    async with real_server(tmp_path, devices=devices, admin_address="127.0.0.1:0", **settings) as running:
        client = protocol(running)
        await (case(client, running, devices) if case is failed else case(client, running))
        if case is superseded:
            await running.told()
            replaced = running.version().statistics.snapshot().failures["REJECTED"]
            assert replaced > 0
            outcomes, reasons = {"ok": 8 - replaced, "superseded": replaced}, {"REJECTED": replaced}
        assert await told_of_all(running, sum(outcomes.values())) == (reasons, outcomes, outcomes.get("ok", 0))
        if case is not cancelled:  # its stream has gone from the table
            count = sum(outcomes.values())
            assert round(count * await page_of(running)) == outcomes.get("ok", 0)  # rates have one decimal
        await client.leave()


@pytest.mark.parametrize("protocol", [Frames, Unary, Stream])
@on_loop
async def test_a_client_that_leaves_before_its_answer_is_read_is_counted_as_gone(tmp_path, form, protocol):
    """The engine process has executed its request, and the answer lies on the socket to the front-end process."""
    if form != forms.FRONT_END:
        pytest.skip("in one process no answer is on its way")
    simulated(tmp_path, max_batch_size=1)
    async with real_server(tmp_path, devices=SimulatedDevices(), admin_address="127.0.0.1:0") as running:
        client, link = protocol(running), running.server.front.engine._link
        running.hold()
        await client.send()
        await eventually(lambda: in_hand(running) == 1)
        loop = asyncio.get_running_loop()
        loop.remove_reader(link._socket)
        running.release()
        await eventually(lambda: running.version().statistics.snapshot().executions == 1)
        (_, request), *_ = link._in_flight.values()
        await client.leave()
        await eventually(lambda: request.is_cancelled)
        loop.add_reader(link._socket, link._read)
        assert await told_of_all(running, 1) == ({"CANCELED": 1}, {"cancelled": 1}, 0)
