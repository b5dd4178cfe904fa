"""In any interleaving, and with death at any point, each request is answered once and its memory comes back."""

import socket
import threading

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.errors import (
    DeadlineExpiredError,
    OverloadedError,
    RequestCancelledError,
    SupersededError,
)
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.front_end_link import BrokenLinkError
from forebay_server.service.group.link_sink import LinkSink
from forebay_server.service.group.memory_layout import ArraysLimits
from forebay_server.service.group.version_memory import VersionMemory
from forebay_server.service.request import Completion, Delivery
from tests.support.far_front_end import FarFrontEnd
from tests.support.guard import HANG_GUARD_S
from tests.support.shared_lane import ArrivedRequests

SPECS = EngineSpecs(
    (TensorSpec("a", np.dtype(np.uint8), (70,)), TensorSpec("b", np.dtype(np.float32), (3,))),
    (TensorSpec("c", np.dtype(np.uint8), (5,)),),
    max_batch_size=4,
)
PERMITS = 6
ERRORS = [SupersededError("newer"), DeadlineExpiredError("late"), DeadlineExpiredError("later", retry_after_ms=5)]


def memory_for(front_ends=2, permits=PERMITS, specs=SPECS):
    return VersionMemory(HostDevice(clock=MonotonicClock()), specs, front_ends, permits, 1 << 14)


class End:
    """The engine process's end, without a thread: takes records in, and ends the requests that the test names."""

    def __init__(self, far, share):
        self.far = far
        self.version = ArrivedRequests()
        self.sink = LinkSink()
        far.link.add_version(far.number, self.version, share)

    def receive(self):
        arrived = {}
        while True:
            try:
                data = self.far.link.socket.recv(wire.MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            self.far.link.take(memoryview(data), arrived)
        for version, requests in arrived.items():
            version.arrive_all(requests)

    def end(self, requests, error=None):
        for request in requests:
            self.version.requests.remove(request)
            request.frame.release()
        outputs = None if error else ()
        self.sink.post([Completion(request, error, outputs, batch_size=0 if error else 1) for request in requests])


@pytest.fixture
def memory():
    memory = memory_for()
    yield memory
    memory.close()


@pytest.fixture
def far(memory):
    far = FarFrontEnd(memory, most_requests=PERMITS)
    yield far
    if not far.link.is_dead:
        far.link.die()
    far.close()


@pytest.fixture
def end(far, memory):
    far.open_stream()
    end = End(far, memory.shares[0])
    end.receive()
    return end


class Protocol(RuleBasedStateMachine):
    """Any interleaving of both ends, and death at any point."""

    @initialize()
    def begin(self):
        self.memory = memory_for()
        self.start()

    def start(self):
        self.far = FarFrontEnd(self.memory, front_end=1, most_requests=PERMITS)
        self.end = End(self.far, self.memory.shares[1])
        self.far.open_stream()
        self.sent = []

    def is_alive(self):
        return not self.far.link.is_dead

    @precondition(lambda self: self.is_alive() and self.far.free)
    @rule(count=st.integers(1, PERMITS))
    def send(self, count):
        made = [self.far.request(len(self.sent) % 250) for _ in range(min(count, len(self.far.free)))]
        self.sent += [token for token, _ in made]
        self.far.send([record for _, record in made])

    @precondition(lambda self: self.is_alive() and self.far.open)
    @rule(data=st.data())
    def give_up(self, data):
        self.far.send([wire.pack_cancel(data.draw(st.sampled_from(sorted(self.far.open))))])

    @precondition(lambda self: self.is_alive())
    @rule()
    def receive(self):
        self.end.receive()

    @precondition(lambda self: self.end.version.requests)
    @rule(data=st.data(), error=st.sampled_from([None, *ERRORS]))
    def end_some(self, data, error):
        requests = self.end.version.requests
        some = data.draw(st.lists(st.sampled_from(range(len(requests))), unique=True, min_size=1))
        self.end.end([requests[index] for index in some], error)

    @precondition(lambda self: self.is_alive())
    @rule()
    def read(self):
        assert self.far.read()

    @precondition(lambda self: self.is_alive())
    @rule()
    def die(self):
        self.end.receive()  # its last records are read before its end
        self.far.link.die()

    @precondition(lambda self: self.far.ended)
    @rule()
    def another_takes_its_place(self):
        self.far.close()
        self.start()

    @invariant()
    def it_ends_once_and_not_before_its_last_request(self):
        has_ended = self.far.link.is_dead and not self.end.version.requests
        assert self.far.ended == [self.far.link] * has_ended

    @invariant()
    def what_was_cancelled_is_still_with_the_engine(self):
        assert all(request.is_cancelled for request in self.end.version.cancelled)

    def teardown(self):
        if self.is_alive():
            self.end.receive()
            self.end.end(list(self.end.version.requests))
            assert self.far.read()
            assert not self.far.open
            assert sorted(self.far.answers.keys() | self.far.errors.keys()) == self.sent
            assert len(set(self.far.free)) == len(self.far.free) == self.memory.layout.slots
            self.far.link.die()
        self.end.end(list(self.end.version.requests))
        assert self.far.ended == [self.far.link]
        assert self.far.link.request_count == 0
        self.far.close()
        self.memory.close()


TestProtocol = Protocol.TestCase


def test_a_request_has_what_its_descriptor_says(far, end):
    token, record = far.request(7, deadline_ns=123, arrival_ns=99)
    far.open_stream(2, Delivery.LATEST, weight=2)
    late, other = far.request(8, stream=2)
    far.send([record, other])
    end.receive()

    first, second = end.version.requests
    assert (first.deadline_ns, first.arrival_ns, first.size, first.priority) == (123, 99, 1, 1)
    assert (second.deadline_ns, second.queue_timeout_ns) == (None, None)
    assert first.stream is not second.stream
    stream = second.stream
    assert (stream.delivery, stream.is_ordered, stream.weight) == (Delivery.LATEST, True, 2)
    assert (first.frame.token, second.frame.token) == (token, late)
    for request, value in ((first, 7), (second, 8)):
        view = request.frame.host.read_view()
        for start, nbytes in zip(request.frame.offsets, (70, 12), strict=True):
            assert set(view[start : start + nbytes]) == {value}


def test_errors_of_one_kind_travel_once_and_each_request_gets_its_own(far, end):
    made = [far.request(1) for _ in range(4)]
    far.send([record for _, record in made])
    end.receive()
    requests = end.version.requests
    errors = [SupersededError("a"), SupersededError("a"), SupersededError("b"), None]

    completions = [
        Completion(request, error, None if error else (), batch_size=0 if error else 1)
        for request, error in zip(requests, errors, strict=True)
    ]
    end.sink.post(completions)
    far.read()

    tokens = [token for token, _ in made]
    assert {token: error.message for token, error in far.errors.items()} == dict(zip(tokens, "aab", strict=False))
    assert list(far.answers) == [tokens[3]]
    requests.clear()


def test_an_answer_that_cannot_be_sent_breaks_the_link():
    """Otherwise its front-end process would wait for it for ever."""
    memory = memory_for(front_ends=1, permits=100)
    far = FarFrontEnd(memory, most_requests=100)
    far.open_stream()
    end = End(far, memory.shares[0])
    far.send([far.request(1)[1] for _ in range(100)])
    end.receive()
    far.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    end.end(list(end.version.requests))  # one datagram, larger than the socket takes at all
    assert far.link.socket.recv(1) == b""
    far.link.die()
    far.close()
    memory.close()


def test_a_cancel_that_follows_its_request_at_once_comes_behind_it(far, end):
    token, record = far.request(1)
    far.send([record, wire.pack_cancel(token)])
    end.receive()

    assert end.version.cancelled == end.version.requests
    assert end.version.requests[0].is_cancelled


def test_a_cancel_of_what_was_answered_is_nothing(far, end):
    token, record = far.request(1)
    far.send([record])
    end.receive()
    end.end(list(end.version.requests))
    far.send([wire.pack_cancel(token)])
    end.receive()

    assert end.version.cancelled == []
    far.read()
    assert list(far.answers) == [token]


def test_answers_wait_for_a_process_that_does_not_read_and_all_come(far, end):
    wanted = []
    far.link.wants_to_write = wanted.append
    while not wanted:
        _, record = far.request(1, at=far.layout.slot_offset(0, 0))
        far.send([record])
        end.receive()
        end.end(list(end.version.requests))
    sent = len(far.open) + 2
    for _ in range(2):
        far.send([far.request(1, at=far.layout.slot_offset(0, 0))[1]])
        end.receive()
        end.end(list(end.version.requests))  # behind those that wait
    while far.open:
        far.read()
        far.link.send_waiting()
    assert len(far.answers) == sent
    assert far.datagrams < sent  # those that waited came together
    assert list(far.answers) == sorted(far.answers)


BROKEN = {
    "a version that was not published": lambda far: wire.pack_request(1, 99, 1, 1, 1, *good(far), wire.NONE, 0),
    "a stream that was not opened": lambda far: wire.pack_request(1, 1, 99, 1, 1, *good(far), wire.NONE, 0),
    "another process's slot": lambda far: wire.pack_request(1, 1, 1, 1, 1, *good(far, 1), wire.NONE, 0),
    "the header": lambda far: wire.pack_request(1, 1, 1, 1, 1, 0, far.layout.inputs_bytes(1), wire.NONE, 0),
    "the middle of a slot": lambda far: wire.pack_request(1, 1, 1, 1, 1, *good(far, shift=64), wire.NONE, 0),
    "outputs that are not behind its inputs": lambda far: wire.pack_request(
        1, 1, 1, 1, 1, good(far)[0], good(far)[1] + 64, wire.NONE, 0
    ),
    "no rows": lambda far: wire.pack_request(1, 1, 1, 0, 1, *good(far), wire.NONE, 0),
    "rows in a slot": lambda far: wire.pack_request(1, 1, 1, 2, 1, *good(far), wire.NONE, 0),
    "more rows than the model takes": lambda far: wire.pack_request(1, 1, 1, 5, 1, *rows_at(far, 5), wire.NONE, 0),
    "rows that leave the share": lambda far: wire.pack_request(
        1, 1, 1, 4, 1, far.layout.share_offset(1) - 64, far.layout.share_offset(1), wire.NONE, 0
    ),
    "a kind that is none": lambda far: bytes([77]) + wire.pack_cancel(1)[1:],
    "an answer": lambda far: wire.pack_error(SupersededError("")),
    "a stream that was closed twice": lambda far: wire.pack_close_stream(1) * 2,
    "less than a record": lambda far: b"\x01",
}


def rows_at(far, rows):
    offset = far.layout.rows_offset(0)
    return offset, offset + far.layout.inputs_bytes(rows)


def good(far, front_end=0, shift=0):
    offset = far.layout.slot_offset(front_end, 0) + shift
    return offset, offset + far.layout.inputs_bytes(1)


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_breaks_the_link(far, end, what):
    far.socket.send(BROKEN[what](far))
    with pytest.raises(BrokenLinkError):
        end.receive()
    assert end.version.requests == []


class Pinning:
    """Stands before a device's `register_host`: pins when the test says so, or fails."""

    def __init__(self, monkeypatch, device, error=None):
        self.threads = []
        self.error = error
        self.may_go_on = threading.Event()
        self._register = device.register_host
        monkeypatch.setattr(device, "register_host", self._pin)

    def _pin(self, memory):
        self.threads.append(threading.current_thread())
        if self.threads[-1] is not threading.main_thread():  # which the test runs on
            self.may_go_on.wait(HANG_GUARD_S)
        if self.error is not None:
            raise self.error
        return self._register(memory)

    def go_on(self, share):
        """Let the area be pinned, or not, and wait until that is over."""
        self.may_go_on.set()
        pinning = share.rows._pinning
        if pinning is not None:
            pinning.join()


def test_requests_of_several_rows_hold_up_no_other_stream_while_their_memory_is_pinned(memory, end, far, monkeypatch):
    share = memory.shares[0]
    pinning = Pinning(monkeypatch, share.rows._device)
    far.open_stream(2)
    far.send([far.request(1, 2)[1], far.request(3, stream=2)[1], far.request(4)[1]])
    end.receive()
    assert [(each.size, each.stream.name) for each in end.version.requests] == [(1, "0/2")]
    far.send([far.request(5, 6, stream=2)[1], wire.pack_cancel(1)])
    end.receive()
    pinning.go_on(share)
    came = [(each.size, each.stream.name) for each in end.version.requests]
    assert came == [(1, "0/2"), (2, "0/1"), (1, "0/1"), (2, "0/2")], "each stream in its order"
    assert end.version.requests[1].is_cancelled
    assert pinning.threads != [threading.main_thread()], "the links' thread pins nothing"
    far.send([far.request(7, 8)[1], far.request(9)[1]])
    end.receive()
    assert [each.size for each in end.version.requests[4:]] == [2, 1]
    rows = [each.frame for each in end.version.requests if each.size == 2]
    assert {frame.host for frame in rows} == {share.rows._buffer}


def test_rows_that_cannot_be_pinned_now_are_refused_and_single_rows_are_not(memory, end, far, monkeypatch):
    share = memory.shares[0]
    pinning = Pinning(monkeypatch, share.rows._device, DeviceMemoryError("no more pinned memory"))
    far.send([far.request(1, 2)[1], far.request(3)[1]])
    end.receive()
    pinning.go_on(share)
    ((request, refusal),) = end.version.refused
    assert (request.size, type(refusal)) == (2, OverloadedError)
    assert [each.size for each in end.version.requests] == [1]
    pinning.error = None
    end.sink.post([Completion(request, refusal)])
    far.send([far.request(4, 5)[1]])
    end.receive()
    pinning.go_on(share)
    assert [each.size for each in end.version.requests] == [1, 2]


def test_requests_that_wait_for_their_memory_end_with_their_process(memory, end, far, monkeypatch):
    share = memory.shares[0]
    pinning = Pinning(monkeypatch, share.rows._device)
    far.send([far.request(1, 2)[1]])
    end.receive()
    far.link.die()
    assert far.ended == []
    pinning.go_on(share)
    assert [each.is_cancelled for each in end.version.requests] == [True]
    end.end(list(end.version.requests), RequestCancelledError("gone"))
    assert far.ended == [far.link]


def test_a_token_that_is_in_use_and_one_request_too_many_break_the_link(far, end):
    made = [far.request(1) for _ in range(PERMITS)]
    far.send([record for _, record in made])
    end.receive()
    for record in (made[0][1], far.request(1, at=made[0][0])[1]):
        far.send([record])
        with pytest.raises(BrokenLinkError):
            end.receive()


def test_requests_that_are_pending_when_their_process_dies_are_cancelled(far, end):
    far.send([far.request(1)[1], far.request(2)[1]])
    end.receive()
    far.link.die()

    assert end.version.cancelled == end.version.requests
    assert all(request.is_cancelled for request in end.version.requests)
    assert far.ended == []
    end.end(list(end.version.requests), RequestCancelledError("gone"))
    assert far.ended == [far.link]


WORDS = EngineSpecs(
    tuple(
        TensorSpec(name, np.dtype(kind), (-1,)) for name, kind in (("a", np.float32), ("b", np.uint8), ("c", object))
    ),
    (TensorSpec("d", np.dtype(np.uint8), (-1,)), TensorSpec("e", np.dtype(object), (-1,))),
    max_batch_size=4,
)
INPUTS = (np.arange(5, dtype=np.float32).reshape(1, 5), None, np.array([["a", "bé", ""]], object))


@pytest.fixture
def varying():
    limits = ArraysLimits(1 << 16, 1 << 18)
    memory = VersionMemory(HostDevice(clock=MonotonicClock()), WORDS, 2, PERMITS, 0, limits)
    far = FarFrontEnd(memory, front_end=1, most_requests=PERMITS)
    far.open_stream()
    end = End(far, memory.shares[1])
    yield end
    if not far.link.is_dead:
        far.link.die()
    far.close()
    memory.close()


def comes(varying, count=1):
    """Have requests come over the link."""
    tokens = []
    for _ in range(count):
        token, record = varying.far.request_of_arrays(INPUTS, WORDS)
        varying.far.send([record])
        tokens.append(token)
    varying.receive()
    return tokens, varying.version.requests[-count:]


def outputs(nbytes, text="long"):
    return [np.full((1, nbytes), 7, np.uint8), np.array([[text]], object)]


def test_inputs_of_varying_shapes_come_in_their_place_and_small_outputs_go_back_in_it(varying):
    (token,), (request,) = comes(varying)
    assert request.batch_key == ((5,), None, (3,))
    for _ in range(2):  # once more, if it runs alone after its batch has failed
        np.testing.assert_equal(request.frame.arrays, INPUTS)
    request.frame.write(outputs(100))
    varying.end([request])
    varying.far.read()
    numbers, texts = varying.far.answers[token][1]
    assert (numbers.tolist(), texts.tolist(), varying.far.offsets[token]) == ([[7] * 100], [["long"]], 0)


def test_outputs_may_be_the_inputs_themselves(varying):
    (token,), (request,) = comes(varying)
    numbers = request.frame.arrays[0]
    request.frame.write([numbers.view(np.uint8)[:, 4:], np.array([["x" * 50]], object)])
    varying.end([request])
    varying.far.read()
    assert varying.far.answers[token][1][0].tobytes() == INPUTS[0].tobytes()[4:]


def test_large_outputs_take_the_outputs_area_until_they_are_given_back(varying):
    (token,), (request,) = comes(varying)
    area = varying.far.memory.layout
    request.frame.write(outputs(100_000, "é" * 999))
    varying.end([request])
    varying.far.read()
    numbers, texts = varying.far.answers[token][1]
    offset = varying.far.offsets[token]
    assert (numbers.nbytes, texts.tolist()) == (100_000, [["é" * 999]])
    assert area.outputs_offset <= offset < area.file_bytes
    varying.far.send([wire.pack_return(varying.far.number, offset)])
    varying.receive()
    varying.far.send([wire.pack_return(varying.far.number, offset)])  # which it has no more
    with pytest.raises(BrokenLinkError):
        varying.receive()


def test_a_process_that_gives_nothing_back_holds_its_part_of_the_outputs_area_and_no_more(varying):
    _, requests = comes(varying, 4)
    for request in requests[:2]:
        request.frame.write(outputs(1 << 17))
    with pytest.raises(OverloadedError, match="outputs"):
        requests[2].frame.write(outputs(1 << 17))
    requests[3].frame.write(outputs(10))
    varying.far.link.remove_version(varying.far.number)  # it uses the version no more
    requests[2].frame.write(outputs((1 << 18) - 5000))
    varying.far.send([wire.pack_return(varying.far.number, 4096)])
    varying.receive()  # a return that comes late means nothing


PLACES = {
    "another process's": lambda start, end: (start - 4096, start),
    "no page": lambda start, end: (start, start),
    "not whole pages": lambda start, end: (start + 64, end),
    "more than the share": lambda start, end: (start, end + (1 << 30)),
    "the header": lambda start, end: (0, 4096),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_place_that_is_not_the_process_s_own_breaks_the_link(varying, what):
    start = varying.far.layout.rows_offset(1)
    places = PLACES[what](start, start + 4096)
    varying.far.send([wire.pack_request(1, varying.far.number, 1, 1, 1, *places, wire.NONE, 0)])
    with pytest.raises(BrokenLinkError):
        varying.receive()


def test_inputs_that_are_torn_break_the_link(varying):
    _, record = varying.far.request_of_arrays(INPUTS, WORDS)
    start = varying.far.layout.rows_offset(1)
    varying.far.memory.memory[start : start + 8] = (1 << 40).to_bytes(8, "little")
    varying.far.send([record])
    with pytest.raises(BrokenLinkError):
        varying.receive()
