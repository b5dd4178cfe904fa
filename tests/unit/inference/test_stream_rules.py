"""A stream of requests under any order of events: each is answered once and in its order, and everything comes back."""

import asyncio
import gc
import weakref
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import BatchFailedError, UnknownModelError
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.stream import InferStream
from forebay_server.service.request import Feasibility
from tests.support.clock import ManualClock
from tests.support.front_end import ManualPool, ManualSink, ManualVersion, specs_of

ELEMENTS = 5000  # typed, or as classes, they are too many for the event loop
WINDOW, PERMITS = 3, 3
LEAST_SERVICE_NS = 1_000_000
MODELS = ("a", "b")


class StreamRules(RuleBasedStateMachine):
    @initialize(ends_on_error=st.booleans())
    def open(self, ends_on_error):
        self.clock, self.sink, self.pool = ManualClock(), ManualSink(), ManualPool()
        self.loop = asyncio.new_event_loop()
        self.versions = {}
        for name in MODELS:
            specs = specs_of([(ELEMENTS,)], [(ELEMENTS,)])
            version = ManualVersion(self.clock, self.sink, specs=specs, permits=PERMITS)
            version.name = name
            version.feasibility = Feasibility(LEAST_SERVICE_NS)
            self.versions[name] = version
        admission = Admission(self.clock, self.sink.drain)
        lookup = ModelLookup(self.acquire, self.acquire, lambda name: None, ClientRegions(is_enabled=False), admission)
        self.outputs = self.rooms = 0
        self.ends_on_error = ends_on_error
        self.stream = InferStream(
            lookup,
            HeavyWork(self.pool),
            admission,
            self.clock,
            "client",
            WINDOW,
            ends_on_error=ends_on_error,
            on_output=partial(self.count, "outputs"),
            on_room=partial(self.count, "rooms"),
        )
        self.sent = {}  # by flow: the ids of its requests, and whether they are right, in order
        self.got = []  # ids, in the order in which they were written
        self.reading = None  # the task of a read loop that waits for a worker
        self.is_reading, self.is_abandoned = True, False
        self.number = 0
        self.wakes_seen, self.is_writer_awake = 0, True

    def acquire(self, name, number):
        if name not in self.versions:
            raise UnknownModelError("no such model")
        self.versions[name].try_use()
        return self.versions[name]

    def count(self, name):
        setattr(self, name, getattr(self, name) + 1)

    def turn(self, do=lambda: None):
        """Call something on the loop, and let the loop do all that it has to."""

        async def main():
            result = do()
            for _ in range(5):
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(main())

    # --- the reader -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_reading and self.reading is None and self.stream.has_room)
    @rule(
        model=st.sampled_from(MODELS),
        flow=st.sampled_from(["", "", "door"]),
        wrong=st.sampled_from(["", "", "", "", "size", "model", "bytes", "late"]),
        is_long=st.booleans(),
        has_classes=st.booleans(),
        delivery=st.sampled_from(["every", "every", "latest"]),
    )
    def read(self, model, flow, wrong, is_long, has_classes, delivery):
        self.number += 1
        request = pb.ModelInferRequest(model_name="c" if wrong == "model" else model, id=str(self.number))
        tensor = request.inputs.add(name="x0", datatype="UINT8", shape=[1, ELEMENTS])
        elements = ELEMENTS - (wrong == "size")
        if is_long:
            tensor.contents.uint_contents.extend([self.number % 251] * elements)
        else:
            request.raw_input_contents.append(bytes([self.number % 251]) * elements)
        output = request.outputs.add(name="y0")
        if has_classes:
            output.parameters["classification"].int64_param = ELEMENTS
        request.parameters["delivery"].string_param = delivery
        if flow:
            request.parameters["stream"].string_param = flow
        if wrong == "late":
            request.parameters["latency_budget_ms"].double_param = 0.5
        data = b"\xff" if wrong == "bytes" else request.SerializeToString()
        # A request whose fault shows only when its data are read has its turn in its flow.
        if wrong == "bytes":
            name = ("", "")
        elif wrong == "model" or (wrong == "size" and not is_long):
            name = (request.model_name, "")
        else:
            name = (model, flow)
        self.sent.setdefault(name, []).append((self.number if wrong != "bytes" else None, wrong))
        waiting = self.turn(lambda: self.stream.on_message(data, self.clock.now_ns()))
        if waiting is not None:
            self.reading = self.loop.create_task(waiting)
            self.turn()
            self.settle_reading()

    def settle_reading(self):
        if self.reading is not None and self.reading.done():
            if not self.reading.cancelled():
                self.reading.result()
            self.reading = None

    @precondition(lambda self: self.is_reading and self.reading is None)
    @rule()
    def stop_reading(self):
        self.is_reading = False
        self.turn(self.stream.stop_reading)

    @precondition(lambda self: not self.is_abandoned)
    @rule()
    def leave(self):
        """As the call does: a reader that waits is cancelled, and the conversation is abandoned when that has ended."""
        self.is_reading = False
        self.is_abandoned = True
        if self.reading is not None:
            self.reading.cancel()
        self.turn()
        self.settle_reading()
        assert self.reading is None, "no worker was at it"
        self.turn(self.stream.abandon)
        assert not any(version.pending for version in self.versions.values()), "what waits is not given up"

    # --- workers, former, lanes, loop -----------------------------------------------------------------------------

    @precondition(lambda self: self.pool.ring)
    @rule(leaves=st.booleans())
    def work(self, leaves):
        """A worker's turn; the client may leave in the middle of it."""
        is_leaving = leaves and not self.is_abandoned and self.reading is not None
        if is_leaving:
            for version in self.versions.values():
                version.arena.on_write = self.reading.cancel
        self.pool.run_one()
        is_cancelled = is_leaving and any(version.arena.on_write is None for version in self.versions.values())
        for version in self.versions.values():
            version.arena.on_write = None
        self.turn()
        self.settle_reading()
        if is_cancelled:
            self.leave()

    @precondition(lambda self: any(version.pending for version in self.versions.values()))
    @rule(model=st.sampled_from(MODELS))
    def form(self, model):
        self.versions[model].form()

    @precondition(lambda self: any(version.executing for version in self.versions.values()))
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data, fails):
        version = data.draw(st.sampled_from([each for each in self.versions.values() if each.executing]))
        index = data.draw(st.integers(0, len(version.executing) - 1))
        version.finish(index, BatchFailedError("the model failed") if fails else None)

    @precondition(lambda self: self.sink.posted)
    @rule()
    def drain(self):
        self.turn(self.sink.drain)

    @rule(ns=st.sampled_from([1, 1_000_000]))
    def advance(self, ns):
        self.clock.advance(ns)

    # --- the writer -----------------------------------------------------------------------------------------------

    @rule()
    def write(self):
        """A turn of the writer: it sleeps only after it found nothing."""
        self.wakes_seen = self.outputs
        rooms, had_room = self.rooms, self.stream.has_room
        while (message := self.stream.next_message()) is not None:
            self.got.append(pb.ModelStreamInferResponse.FromString(message))
        self.is_writer_awake = False
        if not had_room and self.stream.has_room:
            assert self.rooms == rooms + 1, "the reader sleeps on although there is room"

    # --- what holds always ----------------------------------------------------------------------------------------

    @property
    def ids(self):
        return [int(response.infer_response.id) if response.infer_response.id else None for response in self.got]

    @invariant()
    def responses_are_a_prefix_of_every_flow(self):
        got = self.ids
        for requests in self.sent.values():
            ids = [number for number, _ in requests]
            if None in ids:
                assert got.count(None) <= len(ids)
                continue
            of_flow = [number for number in got if number in ids]
            assert of_flow == ids[: len(of_flow)]

    @invariant()
    def the_window_holds(self):
        in_flight = sum(map(len, self.sent.values())) - len(self.got)
        if self.is_abandoned or self.stream.error is not None:
            return
        assert in_flight <= WINDOW
        assert self.stream.has_room == (in_flight < WINDOW)
        assert self.stream.is_finished == (not self.is_reading and in_flight == 0)

    @invariant()
    def the_writer_is_awake_when_there_is_something_to_write(self):
        if not self.is_writer_awake and self.wakes_seen == self.outputs and not self.is_abandoned:
            assert self.stream.next_message() is None

    @invariant()
    def nothing_comes_after_the_client_has_left(self):
        if self.is_abandoned:
            assert self.stream.next_message() is None

    def settle(self):
        for _ in range(4 * WINDOW):
            while self.pool.run_one():
                self.turn()
            for version in self.versions.values():
                version.form()
                while version.executing:
                    version.finish()
            self.turn(self.sink.drain)
        self.settle_reading()
        self.write()

    def teardown(self):
        if not hasattr(self, "stream"):
            return
        if self.reading is not None:
            self.settle()
        if self.is_reading:
            self.stop_reading()
        self.settle()
        assert self.stream.is_finished
        if not self.is_abandoned and self.stream.error is None:
            assert len(self.got) == sum(map(len, self.sent.values()))
        self.check_responses()
        if not self.is_abandoned:
            self.leave()  # a conversation is always abandoned when its call ends
        self.settle()
        for version in self.versions.values():
            assert not version.arena.leases, "a lease was lost"
            assert version.users == 0, "a version is kept open"
        self.loop.close()

    def check_responses(self):
        wrong_of = {number: wrong for requests in self.sent.values() for number, wrong in requests}
        assert not self.ends_on_error or all(not response.error_message for response in self.got)
        for number, response in zip(self.ids, self.got, strict=True):
            wrong, infer = wrong_of[number], response.infer_response
            if response.error_message or "dropped" in infer.parameters:
                continue
            assert not wrong, f"{wrong} was answered"
            if infer.raw_output_contents and infer.outputs[0].datatype == "UINT8":
                assert set(infer.raw_output_contents[0]) == {number % 251}, "outputs of another request"


StreamRules.TestCase.settings = settings(stateful_step_count=40)
TestStreamRules = StreamRules.TestCase


@pytest.mark.parametrize("has_classes", [False, True])
def test_what_a_request_held_is_freed_without_the_collector_of_cycles(has_classes):
    rules = StreamRules()
    rules.open(ends_on_error=False)
    rules.read("a", "", "", is_long=False, has_classes=has_classes, delivery="every")
    (version,) = [version for version in rules.versions.values() if version.pending]
    frame = weakref.ref(version.arena.leases[0])  # of the request: a request cannot be referenced weakly
    version.form()
    gc.disable()
    try:
        version.finish()
        rules.drain()
        rules.pool.run_one()
        rules.turn()
        assert frame() is None
    finally:
        gc.enable()
    rules.teardown()
    assert rules.ids == [1]
