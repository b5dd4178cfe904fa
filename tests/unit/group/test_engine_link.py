"""Requests of a front-end process reach the engine process with their inputs, and end with its answer."""

import asyncio
import contextlib
import itertools
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.service.errors import (
    BatchFailedError,
    InvalidRequestError,
    InvariantError,
    OverloadedError,
    QueueTimeoutError,
    SupersededError,
)
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.stream_numbers import KEPT_NS
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Delivery, Feasibility, StreamKey, Timeline
from forebay_server.service.results.wants import Wants
from tests.support.clock import ManualClock
from tests.support.loops import on_loop
from tests.support.real_server import eventually
from tests.support.requests import frame_request
from tests.support.scripted_engine import VARYING, ScriptedEngine

next_id = itertools.count(1).__next__
TENSORS = Wants(None, ())


@contextlib.contextmanager
def engine(**options):
    clock = options.pop("clock", None) or ManualClock()
    found = ScriptedEngine(asyncio.get_running_loop(), clock, **options)
    try:
        yield found
    finally:
        found.close()


def request_of(scene, frame, ended, **fields):
    request = frame_request(next_id(), frame, wants=TENSORS, **fields)
    request.on_completion = ended.append
    request.timeline.admitted_ns = fields.get("arrival_ns") or 1
    return request


def filled(scene, rows=1, share=None):
    frame = scene.version.arena.lease_rows(rows, share)
    view = frame.host.write_view()
    for index, (offset, nbytes) in enumerate(zip(frame.offsets, scene.version.arena.row_bytes, strict=True)):
        view[offset : offset + nbytes * rows] = index + rows
    return frame


async def turn():
    """Let the loop run the callbacks that were called soon, and those that they call."""
    for _ in range(3):
        await asyncio.sleep(0)


@on_loop
async def test_a_request_brings_its_inputs_and_everything_that_the_former_decides_by():
    with engine(front_end=1) as scene:
        ended = []
        stream = StreamKey("door", Delivery.LATEST, weight=3)
        request = request_of(
            scene, filled(scene), ended, stream=stream, arrival_ns=70, deadline_ns=90, queue_timeout_ns=20
        )
        request.priority = 2
        scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        (opened, _), (kind, found) = scene.records
        assert (opened, kind) == (wire.OPEN_STREAM, wire.REQUEST)
        assert scene.streams[found.stream][1] == wire.IS_LATEST | wire.IS_ORDERED
        assert scene.streams[found.stream][7] == 3
        assert found[1:5] == (7, found.stream, 1, 2)
        assert (found.deadline_ns, found.arrival_ns, found.queue_timeout_ns) == (90, 70, 20)
        assert found.input_offset == scene.layout.slot_offset(1, 0)
        assert scene.inputs(found) == [b"\1" * 100, b"\2" * 4]


@on_loop
async def test_what_has_no_limit_says_so():
    with engine() as scene:
        scene.version.arrive_on_loop(request_of(scene, filled(scene), []))
        await turn()
        scene.read()
        assert scene.records[-1][1].deadline_ns == scene.records[-1][1].queue_timeout_ns == wire.NONE


@on_loop
async def test_an_answer_brings_times_and_copies_of_the_outputs_and_gives_the_place_back():
    with engine() as scene:
        ended = []
        request = request_of(scene, filled(scene), ended)
        scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        times = Timeline(formed_ns=10, readable_ns=20, h2d_ns=1, execute_ns=2, d2h_ns=3, batch_id=9)
        scene.answer([request.id], batch_size=5, times=times)
        await eventually(lambda: ended)
        (completion,) = ended
        assert completion.request is request
        assert completion.error is None
        assert (completion.batch_size, completion.model_version) == (5, "1")
        stamped = request.timeline
        assert (stamped.formed_ns, stamped.readable_ns, stamped.batch_id) == (10, 20, 9)
        assert (stamped.h2d_ns, stamped.execute_ns, stamped.d2h_ns) == (1, 2, 3)
        same, more = completion.outputs
        assert (same.dtype, same.shape, more.dtype, more.shape) == (np.uint8, (1, 10, 10), np.float32, (1, 3))
        assert bytes(same) == bytes([request.id % 251]) * 100
        scene.write_outputs(scene.records[-1][1], 255)
        assert bytes(same) == bytes([request.id % 251]) * 100, "a copy"
        assert request.frame.is_released
        assert scene.version.arena.leased_count == scene.permits.taken_count == scene.link.in_flight_count == 0


@pytest.mark.parametrize("rows", [2, 3, 8])
@on_loop
async def test_requests_of_several_rows_lie_in_the_rows_area(rows):
    with engine(front_end=1) as scene:
        ended = []
        request = request_of(scene, filled(scene, rows), ended)
        request.size = rows
        scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        found = scene.requests[request.id]
        assert found.input_offset >= scene.layout.rows_offset(1)
        assert scene.inputs(found) == [bytes([rows]) * 100 * rows, bytes([rows + 1]) * 4 * rows]
        scene.answer([request.id])
        await eventually(lambda: ended)
        assert [output.shape for output in ended[0].outputs] == [(rows, 10, 10), (rows, 3)]
        assert scene.version.arena.leased_count == 0


@on_loop
async def test_rows_that_have_no_place_are_refused_now_or_for_good():
    with engine(permits=200) as scene:
        arena = scene.version.arena
        with pytest.raises(InvalidRequestError, match="split it"):
            arena.lease_rows(1000)
        held = []
        with pytest.raises(OverloadedError, match="several rows"):
            held.extend(arena.lease_rows(200) for _ in range(200))
        for frame in held:
            frame.release()
        assert arena.leased_count == scene.permits.taken_count == 0
        arena.lease_rows(200).release()


@on_loop
async def test_the_requests_of_one_turn_go_in_one_datagram():
    with engine() as scene:
        for _ in range(4):
            scene.version.arrive_on_loop(request_of(scene, filled(scene), []))
        assert scene.read() == 0
        await turn()
        assert scene.read() == 1
        assert len(scene.requests) == 4


@on_loop
async def test_a_worker_sends_at_once_and_what_waits_goes_before():
    with engine() as scene:
        stream = StreamKey("camera", Delivery.EVERY)
        first = request_of(scene, filled(scene), [], stream=stream)
        second = request_of(scene, filled(scene), [], stream=stream)
        scene.version.arrive_on_loop(first)
        worker = threading.Thread(target=scene.version.arrive, args=(second,))
        worker.start()
        worker.join()
        assert scene.read() == 1
        assert [found.token for kind, found in scene.records if kind == wire.REQUEST] == [first.id, second.id]
        await turn()
        assert scene.read() == 0


@on_loop
async def test_errors_come_back_as_what_they_are_and_once_for_many():
    with engine() as scene:
        ended = []
        requests = [request_of(scene, filled(scene), ended) for _ in range(4)]
        for request in requests:
            scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        scene.fail([requests[0].id], SupersededError("a newer one came"))
        scene.fail([requests[1].id, requests[2].id], BatchFailedError("it failed", retry_after_ms=30))
        scene.fail([requests[3].id], QueueTimeoutError("too long"))
        await eventually(lambda: len(ended) == 4)
        assert [type(each.error) for each in ended] == [
            SupersededError,
            BatchFailedError,
            BatchFailedError,
            QueueTimeoutError,
        ]
        assert (ended[1].error.message, ended[1].error.retry_after_ms) == ("it failed", 30)
        assert all(each.outputs is None and each.batch_size == 0 for each in ended)
        assert requests[0].timeline.readable_ns == 5
        assert scene.version.arena.leased_count == scene.permits.taken_count == 0


@on_loop
async def test_cancels_name_what_is_in_flight_and_its_outputs_are_not_copied():
    with engine() as scene:
        ended = []
        sent, unsent = request_of(scene, filled(scene), ended), request_of(scene, filled(scene), ended)
        scene.version.arrive_on_loop(sent)
        sent.is_cancelled = unsent.is_cancelled = True
        scene.version.cancel([sent, unsent])
        await turn()
        scene.read()
        assert [found.token for kind, found in scene.records if kind == wire.CANCEL] == [sent.id]
        scene.answer([sent.id])
        await eventually(lambda: ended)
        assert ended[0].outputs == ()
        unsent.frame.release()
        assert scene.version.arena.leased_count == 0


def arrays_request(scene, ended, size, **fields):
    frame = scene.version.unbound.lease((np.arange(size, dtype=np.uint8).reshape(1, size),), Share())
    return request_of(scene, frame, ended, **fields)


def is_all_given_back(scene):
    return not (
        scene.permits.taken_count or scene.version.unbound.leased_count or scene.link.in_flight_count
    ) and scene.outputs._held == [{}, {}]


@on_loop
async def test_requests_of_varying_shapes_lie_in_their_place_and_get_their_outputs_in_it():
    with engine(specs=VARYING, front_end=1) as scene:
        ended = []
        request, other = arrays_request(scene, ended, 6), arrays_request(scene, ended, 2)
        scene.version.arrive_on_loop(request)
        scene.version.arrive_on_loop(other)
        await turn()
        scene.read()
        assert scene.requests[request.id].input_offset >= scene.layout.rows_offset(1)
        scene.answer([request.id])
        scene.fail([other.id], BatchFailedError("it failed"))
        await eventually(lambda: len(ended) == 2)
        (output,) = ended[0].outputs
        assert output.tolist() == [[0, 2, 4, 6, 8, 10]]
        assert not scene.returned
        assert is_all_given_back(scene)


@pytest.mark.parametrize("size", [5_000, 900_000])  # copied on the event loop, and by a worker
@on_loop
async def test_outputs_that_are_larger_than_their_inputs_lie_in_the_outputs_area_until_they_are_copied(size):
    with engine(specs=VARYING) as scene:
        scene.repeats = 4
        ended = []
        request = arrays_request(scene, ended, size)
        scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        scene.answer([request.id])
        await eventually(lambda: ended)
        (output,) = ended[0].outputs
        assert output.shape == (1, 4 * size)
        assert (output == np.tile(2 * np.arange(size, dtype=np.uint8), 4)).all()
        scene.read()
        assert len(scene.returned) == 1
        assert is_all_given_back(scene)


@on_loop
async def test_what_requests_of_varying_shapes_hold_together_is_bounded():
    with engine(specs=VARYING) as scene:
        unbound = scene.version.unbound
        with pytest.raises(InvalidRequestError, match="together"):
            unbound.lease((np.zeros((1, (1 << 20) + 1), np.uint8),), Share())
        held = unbound.lease((np.zeros((1, 1 << 20), np.uint8),), Share())
        with pytest.raises(OverloadedError):
            unbound.lease((np.zeros((1, 1), np.uint8),), Share())
        held.release()
        held.release()
        assert is_all_given_back(scene)


@on_loop
async def test_outputs_that_cannot_be_read_end_their_request_alone():
    with engine(specs=VARYING) as scene:
        ended = []
        made = [arrays_request(scene, ended, size) for size in (2, 3, 4)]
        for request in made:
            scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        place = scene.requests[made[1].id].input_offset

        def tear():
            scene.file.memory[place : place + 8] = (1 << 40).to_bytes(8, "little")

        scene.answer([request.id for request in made], before_sending=tear)
        await eventually(lambda: len(ended) == 3)
        errors = {completion.request: completion.error for completion in ended}
        assert [type(errors[request]) for request in made] == [type(None), InvariantError, type(None)]
        assert is_all_given_back(scene)


@on_loop
async def test_an_answer_to_no_request_ends_the_link_after_all_others_were_completed():
    with engine() as scene:
        ended = []
        requests = [request_of(scene, filled(scene), ended) for _ in range(3)]
        for request in requests:
            scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        times = Timeline(formed_ns=1, readable_ns=2)
        records = [wire.pack_answer(token, 1, times) for token in (requests[0].id, 4_000_000_000, requests[1].id)]
        scene.socket.send(b"".join(records))
        scene.answer([requests[2].id])
        await eventually(lambda: scene.lost)
        assert [each.request for each in ended] == requests
        assert all(each.error is None for each in ended)
        assert scene.permits.taken_count == scene.version.arena.leased_count == 0


@on_loop
async def test_a_datagram_that_is_cut_ends_the_link_after_the_answers_before_it():
    with engine() as scene:
        ended = []
        request = request_of(scene, filled(scene), ended)
        scene.version.arrive_on_loop(request)
        await turn()
        scene.read()
        scene.answer([request.id])
        scene.socket.send(b"\5" * (wire.RECORD_BYTES - 1))
        await eventually(lambda: scene.lost)
        assert [each.request for each in ended] == [request]


@on_loop
async def test_a_record_that_cannot_be_sent_breaks_the_link():
    """Otherwise its client would wait for ever."""
    with engine(permits=200, front_ends=1) as scene:
        scene.link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        stream = StreamKey("camera", Delivery.EVERY)
        for _ in range(200):  # one datagram, larger than the socket takes at all
            scene.version.arrive_on_loop(request_of(scene, filled(scene), [], stream=stream))
        await eventually(lambda: scene.lost)
        assert scene.socket.recv(1) == b""


@on_loop
async def test_a_stream_keeps_its_number_while_it_brings_requests():
    clock = ManualClock()
    with engine(clock=clock) as scene:
        stream, silent, ended = StreamKey("camera", Delivery.LATEST), StreamKey("silent", Delivery.EVERY), []

        async def frame(stream, *, is_answered=True):
            clock.advance(KEPT_NS * 2 // 3)
            request = request_of(scene, filled(scene), ended, stream=stream, arrival_ns=clock.now_ns())
            scene.version.arrive_on_loop(request)
            await turn()
            scene.read()
            if is_answered:
                before = len(ended)
                scene.answer([request.id])
                await eventually(lambda: len(ended) > before)
            return scene.records[-1][1].stream

        waiting = await frame(silent, is_answered=False)
        number = await frame(stream)
        assert {await frame(stream) for _ in range(9)} == {number}
        assert set(scene.streams) == {number, waiting}, "a request in flight keeps it"
        scene.answer(list(scene.requests))
        await turn()
        assert {await frame(stream) for _ in range(9)} == {number}
        assert set(scene.streams) == {number}
        assert await frame(silent) not in (number, waiting)


@on_loop
async def test_what_the_socket_does_not_take_waits_and_keeps_its_order():
    with engine(permits=1000, front_ends=1) as scene:
        stream, requests = StreamKey("camera", Delivery.EVERY), []
        for _ in range(1000):
            requests.append(request_of(scene, filled(scene), [], stream=stream))
            scene.version.arrive(requests[-1])
        assert scene.link._datagrams.are_waiting
        for _ in range(100_000):
            scene.read()
            await asyncio.sleep(0)
            if len(scene.requests) == len(requests):
                break
        assert list(scene.requests) == [request.id for request in requests]
        assert not scene.link._datagrams.are_waiting
        assert len(scene.datagrams) < len(requests) // 2, "those that waited were joined"


@on_loop
async def test_the_end_of_the_engine_process_is_told_once_and_nothing_is_sent_after_it():
    with engine() as scene:
        scene.socket.close()
        scene.version.arrive_on_loop(request_of(scene, filled(scene), []))
        await eventually(lambda: scene.lost)
        scene.version.arrive_on_loop(request_of(scene, filled(scene), []))
        scene.version.arrive(request_of(scene, filled(scene), []))
        await turn()
        assert scene.lost == [True]


@on_loop
async def test_what_admission_knows_is_what_the_engine_process_published_last():
    with engine() as scene:
        version = scene.version
        assert version.feasibility.least_service_ns == 0
        header = VersionHeader(scene.file.memory, 2)
        header.publish(Feasibility(5, 6, 7))
        assert version.feasibility == Feasibility(5, 6, 7)
        version.egress_time.observe(100, 150)
        assert header.egress()[0][3:5] == (100, 1)


@on_loop
async def test_a_retired_version_is_unused_only_when_its_requests_are_answered_and_its_places_are_back():
    with engine() as scene:
        version = scene.version
        assert version.try_use()
        sent, decoding = request_of(scene, filled(scene), []), filled(scene)
        version.arrive_on_loop(sent)
        version.end_use()
        version.retire()
        await turn()
        scene.read()
        assert scene.unused == []
        scene.answer([sent.id])
        await eventually(lambda: not scene.link.in_flight_count)
        assert scene.unused == []
        decoding.release()
        await eventually(lambda: scene.unused == [version])


@on_loop
async def test_a_retired_version_is_told_unused_when_its_last_user_has_gone():
    with engine() as scene:
        version = scene.version
        assert version.try_use()
        assert version.try_use()
        version.end_use()
        version.retire()
        version.retire()
        assert not version.try_use()
        assert scene.unused == []
        version.end_use()
        assert scene.unused == [version]


EVENTS = st.lists(
    st.tuples(st.sampled_from(["send", "worker", "cancel", "answer", "fail", "turn"]), st.integers(0, 9)), max_size=60
)


class Story:
    """Does one event after the other to a link."""

    def __init__(self, scene):
        self.scene = scene
        self.sent = []
        self.ended = []

    def send(self, number, *, is_worker):
        with contextlib.suppress(OverloadedError):
            request = request_of(self.scene, filled(self.scene, 1 + number % 3), self.ended)
            request.size = request.frame.rows
            self.sent.append(request)
            version = self.scene.version
            (version.arrive if is_worker else version.arrive_on_loop)(request)

    async def happen(self, event, number):
        scene, tokens = self.scene, list(self.scene.requests)
        if event in ("send", "worker"):
            self.send(number, is_worker=event == "worker")
        elif event == "cancel":
            scene.version.cancel(self.sent[number : number + 2])
        elif event == "turn":
            await turn()
            scene.read()
        elif tokens and event == "answer":
            scene.answer(tokens[: 1 + number])
        elif tokens:
            scene.fail(tokens[: 1 + number], SupersededError("a newer one came"))


@given(EVENTS, st.integers(1, 6))
@settings(deadline=None)
def test_whatever_happens_every_request_ends_once_and_every_place_comes_back(events, permits):
    @on_loop
    async def run():
        with engine(permits=permits) as scene:
            story = Story(scene)
            for event, number in events:
                await story.happen(event, number)
            await story.happen("turn", 0)
            scene.answer(list(scene.requests))
            await eventually(lambda: len(story.ended) >= len(story.sent))
            assert sorted(each.request.id for each in story.ended) == [request.id for request in story.sent]
            assert scene.version.arena.leased_count == scene.permits.taken_count == scene.link.in_flight_count == 0
            assert scene.counts.read(0) == 0

    run()
