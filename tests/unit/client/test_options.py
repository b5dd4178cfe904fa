"""Options of a caller, and their form on the wire."""

import pytest

from forebay.client.options import Reconnection, StreamOptions, Tls, open_message
from forebay.client.retry import CallEnd, NextStep, hint_ms
from forebay.wire import frames_pb2 as wire


def opened(resume_from=None, **keywords):
    options = StreamOptions(camera="door", model="m", **keywords)
    return wire.ClientMessage.FromString(open_message(options, resume_from)).open


def test_open_says_what_was_asked_for():
    message = opened(
        resume_from=7, encoding="rgb8", width=64, height=48, delivery="every", budget_ms=50.0, outputs=("tensors",)
    )
    assert (message.stream_id, message.model, message.encoding) == ("door", "m", wire.ENCODING_RGB8)
    assert (message.width, message.height, message.delivery) == (64, 48, wire.DELIVERY_EVERY)
    assert (message.latency_budget_ms, message.resume_from) == (50.0, 7)
    assert list(message.outputs) == [wire.OUTPUT_TENSORS]


@pytest.mark.parametrize(
    ("masks", "value"),
    [
        (None, wire.MASK_FORMAT_UNSPECIFIED),
        ("polygons", wire.MASK_FORMAT_POLYGONS),
        ("run_lengths", wire.MASK_FORMAT_RUN_LENGTHS),
    ],
)
def test_masks_are_asked_for_by_their_form(masks, value):
    assert opened(masks=masks).masks == value


def test_tracks_are_asked_for_with_the_state_of_the_call_before():
    message = wire.ClientMessage.FromString(
        open_message(StreamOptions(camera="door", model="m", track=True), 7, b"state")
    ).open
    assert (message.track, message.track_state) == (True, b"state")
    assert not opened().track


def test_what_was_not_asked_for_is_not_said():
    message = opened()
    assert not message.HasField("latency_budget_ms")
    assert not message.HasField("score_threshold")
    assert not message.HasField("resume_from")


@pytest.mark.parametrize(
    ("keywords", "drops_oldest", "resends"),
    [
        ({}, True, False),
        ({"delivery": "every"}, False, True),
        ({"policy": "block"}, False, False),
        ({"delivery": "every", "policy": "drop_oldest"}, True, False),
        ({"delivery": "every", "resend": False}, False, False),
    ],
)
def test_policy_follows_from_delivery(keywords, drops_oldest, resends):
    options = StreamOptions(camera="door", model="m", **keywords)
    assert (options.drops_oldest, options.resends) == (drops_oldest, resends)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"camera": ""}, "camera must be"),
        ({"camera": "x" * 257}, "camera must be"),
        ({"model": ""}, "model must not be empty"),
        ({"encoding": "bmp"}, "encoding must be one of"),
        ({"delivery": "some"}, "delivery must be one of"),
        ({"policy": "wait"}, "policy must be one of"),
        ({"outputs": ("boxes",)}, "outputs must be one of"),
        ({"masks": "rle"}, "masks must be one of polygons, run_lengths, not 'rle'"),
        ({"encoding": "nv12", "width": 3, "height": 2}, "even width"),
        ({"headers": {"Key": "x"}}, "headers: 'Key' is no name"),
        ({"headers": {"grpc-timeout": "1"}}, "is no name"),
        ({"headers": {"key-bin": "x"}}, "is no name"),
        ({"headers": {"key": "secr\u00e9t"}}, "the value of 'key' must be printable ASCII"),
        ({"headers": {"key": "a\n"}}, "the value of 'key' must be printable ASCII"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(keywords, words):
    with pytest.raises(ValueError, match=words):
        StreamOptions(**{"camera": "door", "model": "m", **keywords})


def test_certificate_without_its_key_is_refused():
    with pytest.raises(ValueError, match="needs its key"):
        Tls(cert="client.pem")


def test_times_are_positive():
    with pytest.raises(ValueError, match="backoff_cap_s must be more than 0"):
        Reconnection(backoff_cap_s=0)


@pytest.mark.parametrize(
    ("end", "next_step"),
    [
        (CallEnd("UNAVAILABLE"), NextStep.RETRY),
        (CallEnd("CANCELLED"), NextStep.RETRY),
        (CallEnd("INTERNAL", "RST_STREAM"), NextStep.RETRY),
        (CallEnd("UNKNOWN"), NextStep.RETRY),
        (CallEnd("OK"), NextStep.RETRY),
        (CallEnd("RESOURCE_EXHAUSTED", "too many streams"), NextStep.RETRY),
        (CallEnd("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)"), NextStep.REFUSED),
        (CallEnd("NOT_FOUND"), NextStep.REFUSED),
        (CallEnd("INVALID_ARGUMENT"), NextStep.REFUSED),
        (CallEnd("UNIMPLEMENTED"), NextStep.REFUSED),
        (CallEnd("UNAUTHENTICATED"), NextStep.REFUSED),
        (CallEnd("OK", was_asked=True), NextStep.REOPEN),
    ],
)
def test_end_of_a_call_says_what_comes_next(end, next_step):
    assert end.next_step is next_step


def test_a_message_that_is_too_large_has_two_ways_out():
    end = CallEnd("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)")
    assert end.reason.endswith("(9 vs. 4). Send smaller pictures, or JPEG, or raise max_message_bytes of the server")
    assert end.words == f"RESOURCE_EXHAUSTED: {end.reason}"


def test_advice_is_read_and_limited():
    assert hint_ms([("x", "1"), ("retry-after-ms", "250")]) == 250
    assert hint_ms([("retry-after-ms", "99999999")]) == 60_000
    assert hint_ms([("retry-after-ms", "soon"), ("grpc-retry-pushback-ms", "-1")]) == 0
