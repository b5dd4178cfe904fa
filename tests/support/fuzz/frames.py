"""Streams of forebay.v1: an Open and frames, most of them right, some changed in their fields or in their bytes."""

import re
import sys
import tempfile

import grpc
from google.protobuf.message import DecodeError

from forebay.wire import frames_pb2 as pb
from tests.support.fuzz.mutation import mutate, mutate_bytes
from tests.support.real_server import METHOD, row
from tests.support.repository import ROOT

REFUSALS = frozenset(
    (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
)
"""Statuses with which a stream may end because of a client's messages; never UNKNOWN, and never INTERNAL."""
PATHS = "|".join(re.escape(str(folder)) for folder in (ROOT, sys.prefix, tempfile.gettempdir()))
LEAK = re.compile(rf"{PATHS}|Traceback|\.py\b|service\.|engines\.|\b0x[0-9a-f]{{6}}|localhost")
"""Text that no message may contain. Random names have slashes of their own, so only existing folders count."""
ENDED_UNEXECUTED = frozenset((pb.STATUS_INVALID, pb.STATUS_EXPIRED, pb.STATUS_SUPERSEDED, pb.STATUS_OVERLOADED))


def opening(rng, **fields):
    """Return an Open as bytes; one in five is changed."""
    given = {"model": "sim", "stream_id": f"camera {rng.randrange(9)}", "encoding": pb.ENCODING_TENSOR, **fields}
    window = rng.choice((0, 1, 16, 64))
    message = pb.ClientMessage(open=pb.Open(delivery=rng.randrange(3), max_in_flight=window, **given))
    if rng.random() < 0.2:
        mutate(message.open, rng, rng.randint(1, 3))
    return message.SerializeToString()


def frame(seq, payload, rng):
    """Return one frame as bytes; one in four is changed."""
    message = pb.ClientMessage(frame=pb.Frame(seq=seq, capture_time_us=rng.randrange(1 << 40), payload=payload))
    choice = rng.random()
    if choice > 0.25:
        return message.SerializeToString()
    if choice > 0.02:
        mutate(message.frame, rng, rng.randint(1, 2))
    data = message.SerializeToString()
    if choice < 0.01:
        return mutate_bytes(data, rng, 2)
    return data + pb.ClientMessage(frame=pb.Frame(seq=seq)).SerializeToString() if choice < 0.02 else data


def converse(channel, opened, frames):
    """Play one stream; the results, the code and the words that it ended with."""
    call = channel.stream_stream(METHOD)(iter([opened, *frames]))
    results = []
    try:
        for data in call:
            message = pb.ServerMessage.FromString(data)
            if message.WhichOneof("message") == "result":
                results.append(message.result)
    except grpc.RpcError:
        pass  # the code says it
    return results, call.code(), call.details()


def check(opened, frames, results, code, words):
    """Every frame up to the end of the stream has one answer, in order, and the end has a reason of the client's."""
    assert code is grpc.StatusCode.OK or code in REFUSALS, (code, words)
    check_words(words or "", opened)
    sent = [parsed(data) for data in frames]
    if code is grpc.StatusCode.OK:
        assert len(results) == len(sent), (len(results), len(sent))
    elif results:
        assert not _is_plain(frames[len(results)]), (code, words)
    for result, message in zip(results, sent, strict=False):
        assert result.seq == message.seq
        assert result.capture_time_us == message.capture_time_us
        if result.status.code == pb.STATUS_OK:
            continue
        assert result.status.code in ENDED_UNEXECUTED, result.status
        check_words(result.status.message, opened)
        assert result.status.message


def check_words(text, sent=b""):
    """No path, no traceback and no name from the inside; a client may read its own words again."""
    assert len(text) < 4000
    assert not LEAK.search(text), (text, sent[:200])


def _is_plain(data):
    message = parsed(data)
    return message is not None and data == pb.ClientMessage(frame=message).SerializeToString()


def parsed(data):
    """The frame that protobuf finds in a message, or None."""
    try:
        message = pb.ClientMessage.FromString(data)
    except DecodeError:
        return None
    return message.frame if message.WhichOneof("message") == "frame" else None


def tensors(channel, rng, count):
    """One stream of tensors; its answers are as sent."""
    opened = opening(rng)
    frames = [frame(seq, row(seq), rng) for seq in range(1, count + 1)]
    results, code, words = converse(channel, opened, frames)
    check(opened, frames, results, code, words)
    for result, data in zip(results, frames, strict=False):
        if result.status.code == pb.STATUS_OK:
            for tensor in result.tensors:
                assert tensor.data == parsed(data).payload
