"""Descriptors of frames come out as they went in."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service import errors
from forebay_server.service.errors import (
    BatchFailedError,
    InvariantError,
    QueueFullError,
    ServiceError,
    SupersededError,
)
from forebay_server.service.frontend.frames.codec import encode_refusal
from forebay_server.service.group import descriptors
from forebay_server.service.group.descriptors import (
    CANCEL,
    CLOSE_STREAM,
    IS_LATEST,
    IS_ORDERED,
    MAX_DATAGRAM_BYTES,
    MAX_RECORDS,
    NONE,
    OPEN_STREAM,
    RECORD_BYTES,
    RequestRecord,
)
from forebay_server.service.request import Delivery, Timeline

numbers = st.integers(0, 2**32 - 1)
offsets = st.integers(0, 2**63 - 1)
instants = st.integers(0, 2**62)
requests = st.builds(
    RequestRecord,
    token=numbers,
    version=numbers,
    stream=numbers,
    rows=st.integers(1, 2**32 - 1),
    priority=st.integers(0, 2**16 - 1),
    input_offset=offsets,
    output_offset=offsets,
    deadline_ns=instants | st.just(NONE),
    arrival_ns=instants,
    queue_timeout_ns=instants | st.just(NONE),
)
timelines = st.builds(
    Timeline, formed_ns=instants, readable_ns=instants, h2d_ns=instants, execute_ns=instants, d2h_ns=instants,
    batch_id=instants,
)  # fmt: skip


@given(st.lists(requests, max_size=600))
def test_requests_come_out_in_order_whatever_they_hold(sent: list[RequestRecord]) -> None:
    datagrams = list(descriptors.datagrams([descriptors.pack_request(*record) for record in sent]))

    assert [descriptors.fields(record) for each in datagrams for record in descriptors.unpack(each)] == sent
    assert all(len(each) <= MAX_DATAGRAM_BYTES for each in datagrams)


def test_a_number_of_a_client_that_no_record_holds_is_the_largest_that_it_holds() -> None:
    far = 2**63 - 1
    record = descriptors.pack_request(1, 2, 3, 1, 2**64 - 1, 0, 64, 4 * 10**20, 7, 10**22)

    ((*_, deadline, arrival, timeout),) = descriptors.unpack(record)
    ((_, _, priority, token, *_),) = descriptors.unpack(record)

    assert (priority, deadline, arrival, timeout) == (2**16 - 1, far, 7, far)
    assert token == 1


@given(numbers, st.sampled_from(Delivery), st.booleans(), st.integers(1, 1024))
def test_streams_and_cancels_keep_their_place_among_requests(
    number: int, delivery: Delivery, is_ordered: bool, weight: int
) -> None:
    opened = descriptors.pack_open_stream(number, delivery, is_ordered=is_ordered, weight=weight)
    sent = [opened, descriptors.pack_cancel(number), descriptors.pack_close_stream(number)]

    (datagram,) = descriptors.datagrams(sent)
    first, second, third = descriptors.unpack(datagram)

    assert (first[0], first[5], first[7]) == (OPEN_STREAM, number, weight)
    assert bool(first[1] & IS_LATEST) is (delivery is Delivery.LATEST)
    assert bool(first[1] & IS_ORDERED) is is_ordered
    assert (second[0], second[3]) == (CANCEL, number)
    assert (third[0], third[5]) == (CLOSE_STREAM, number)


@given(st.lists(st.tuples(numbers, numbers, timelines), min_size=1, max_size=300))
def test_answers_carry_their_times(sent: list[tuple[int, int, Timeline]]) -> None:
    records = [descriptors.pack_answer(token, size, timeline) for token, size, timeline in sent]

    came: list[tuple[int, int, Timeline]] = []
    for datagram in descriptors.datagrams(records):
        error, answers = descriptors.unpack_answers(datagram)
        assert error is None
        for answer in answers:
            timeline = Timeline()
            descriptors.stamp(timeline, answer)
            came.append((answer[2], answer[1], timeline))

    assert came == sent


def test_a_request_that_was_never_executed_has_the_time_of_the_decision() -> None:
    record = descriptors.pack_answer(1, 0, Timeline(built_ns=77))

    _, (answer,) = descriptors.unpack_answers(record)

    assert answer[5] == 77


def test_a_decision_that_was_made_before_the_request_came_is_an_answer_as_any_other() -> None:
    decided = Timeline(built_ns=4_990_000)  # the former read its clock, and took in a request that was sent after that
    _, (answer,) = descriptors.unpack_answers(descriptors.pack_answer(1, 0, decided))
    timeline = Timeline(received_ns=1_000_000, validated_ns=2_000_000, admitted_ns=5_000_000)

    descriptors.stamp(timeline, answer)
    timeline.built_ns = 6_000_000

    assert min(astuple(timeline.durations_us())) >= 0
    result = pb.ServerMessage.FromString(encode_refusal(7, 0, SupersededError("newer"), timeline)).result
    assert (result.timings.queue_us, result.timings.deliver_us, result.timings.server_total_us) == (0, 1000, 5000)


@given(
    st.sampled_from([kind for kind in descriptors._CLASSES if kind is not InvariantError]),
    st.text(max_size=errors.MAX_MESSAGE_CHARACTERS),
    st.integers(0, 2**31),
    st.lists(numbers, min_size=1, max_size=600),
)
def test_an_error_is_said_once_and_is_the_same_error(
    kind: type[ServiceError], text: str, retry_after_ms: int, tokens: list[int]
) -> None:
    error = kind(text, retry_after_ms=retry_after_ms)
    records = [descriptors.pack_answer(token, 0, Timeline()) for token in tokens]

    came: list[int] = []
    datagrams = list(descriptors.error_datagrams(error, records))
    for datagram in datagrams:
        assert len(datagram) <= MAX_DATAGRAM_BYTES
        rebuilt, answers = descriptors.unpack_answers(datagram)
        assert rebuilt is not None
        assert (type(rebuilt), rebuilt.message, rebuilt.retry_after_ms) == (kind, error.message, retry_after_ms)
        came.extend(answer[2] for answer in answers)

    assert came == tokens
    assert len(datagrams) == -(-len(tokens) // MAX_RECORDS)


def test_datagrams_of_answers_are_joined_as_long_as_they_are_one() -> None:
    answers = descriptors.pack_answer(1, 1, Timeline()) * 2
    errors = descriptors.pack_error(BatchFailedError("x")) + answers

    assert descriptors.can_join(answers, answers)
    assert not descriptors.can_join(answers, errors)
    assert not descriptors.can_join(errors, answers)
    assert descriptors.can_join(answers, answers[:64] * (MAX_RECORDS - 2))
    assert not descriptors.can_join(answers, answers[:64] * (MAX_RECORDS - 1))


def test_a_bug_stays_masked() -> None:
    datagram = descriptors.pack_error(InvariantError("secret detail"))

    rebuilt, _ = descriptors.unpack_answers(datagram)

    assert b"secret" not in datagram
    assert type(rebuilt) is InvariantError
    assert rebuilt.message == InvariantError("").message


def test_a_class_that_is_not_in_the_table_travels_as_its_base() -> None:
    class StillFullError(QueueFullError):
        pass

    class StrangeError(ServiceError):
        outcome = SupersededError.outcome
        scope = "request"

    rebuilt = [
        descriptors.unpack_answers(descriptors.pack_error(error))[0]
        for error in (StillFullError("a"), StrangeError("b"))
    ]

    assert [type(error) for error in rebuilt] == [QueueFullError, InvariantError]


@pytest.mark.parametrize("cut", [1, RECORD_BYTES - 1, RECORD_BYTES + 1])
def test_what_is_cut_is_refused(cut: int) -> None:
    answers = descriptors.pack_error(BatchFailedError("x")) + descriptors.pack_answer(1, 0, Timeline())
    requests = descriptors.pack_cancel(1) * 2

    with pytest.raises(ValueError, match="bytes"):
        list(descriptors.unpack(requests[:cut]))
    with pytest.raises(ValueError, match="bytes"):
        list(descriptors.unpack_answers(answers[:cut])[1])


def test_an_empty_datagram_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        descriptors.unpack_answers(b"")
