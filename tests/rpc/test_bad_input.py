"""Any input of a client gets a clear status on the frame or on the stream, and all earlier frames are answered."""

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.loops import on_loop
from tests.support.pictures import jpeg, pictures
from tests.support.real_server import LEAK, ROW_BYTES, real_server, row, simulated

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PICTURES = {"model": "camera", "outputs": [pb.OUTPUT_TENSORS]}


async def refusal(running, *messages, **fields):
    """Send bytes on a new stream; return the RPC's code and message, which reveals nothing internal."""
    stream = running.stream()
    for message in messages:
        await stream.send_bytes(message)
    if fields:
        await stream.send_open(**fields)
    code, details = await stream.status()
    own_words = details.replace(fields.get("model", ""), "") if fields.get("model") else details
    assert not LEAK.search(own_words), details
    assert details
    return code, details


BAD_OPENS = {
    "unknown model": ({"model": "unknown"}, NOT_FOUND, "no model 'unknown' here; loaded are: camera, sim"),
    "path as model": ({"model": "../sim"}, NOT_FOUND, "no model"),
    "empty model": ({"model": ""}, INVALID, "open.model"),
    "unknown version": ({"version": "9"}, NOT_FOUND, "no version '9'; loaded are: 1"),
    "version that is no number": ({"version": "one"}, NOT_FOUND, "no version 'one'"),
    "empty stream_id": ({"stream_id": ""}, INVALID, "open.stream_id"),
    "long stream_id": ({"stream_id": "x" * 257}, INVALID, "open.stream_id"),
    "no encoding": ({"encoding": 0}, INVALID, "open.encoding"),
    "unknown encoding": ({"encoding": 77}, INVALID, "open.encoding"),
    "pictures for a model of tensors": ({"encoding": pb.ENCODING_JPEG}, grpc.StatusCode.UNIMPLEMENTED, "no pictures"),
    "wrong shape": ({"shape": [3, 5]}, INVALID, "open.shape is [3, 5]"),
    "no size": ({**PICTURES, "encoding": pb.ENCODING_BGR8}, INVALID, "0x0"),
    "size of 0x65535": ({**PICTURES, "encoding": pb.ENCODING_RGB8, "height": 65535}, INVALID, "0x65535"),
    "size of 65536": ({**PICTURES, "encoding": pb.ENCODING_RGB8, "width": 65536, "height": 1}, INVALID, "65536"),
    "size of 65535x65535": (
        {**PICTURES, "encoding": pb.ENCODING_RGB8, "width": 65535, "height": 65535},
        INVALID,
        "65535x65535",
    ),
    "odd NV12": ({**PICTURES, "encoding": pb.ENCODING_NV12, "width": 15, "height": 16}, INVALID, "even"),
    "unknown delivery": ({"delivery": 9}, INVALID, "open.delivery"),
    "negative budget": ({"latency_budget_ms": -1.0}, INVALID, "open.latency_budget_ms is -1 ms"),
    "budget that is no number": ({"latency_budget_ms": float("nan")}, INVALID, "open.latency_budget_ms"),
    "endless budget": ({"latency_budget_ms": float("inf")}, INVALID, "open.latency_budget_ms"),
    "boxes of a model without": ({"outputs": [pb.OUTPUT_DETECTIONS]}, grpc.StatusCode.UNIMPLEMENTED, "DETECTIONS"),
    "unknown output": ({"outputs": [99]}, grpc.StatusCode.UNIMPLEMENTED, "99"),
    "unknown tensor": ({"tensor_names": ["nose"]}, INVALID, "no output 'nose'"),
}


@pytest.mark.parametrize("case", BAD_OPENS)
@on_loop
async def test_a_bad_open_ends_its_stream_with_a_reason(tmp_path, case):
    fields, expected, words = BAD_OPENS[case]
    async with real_server(pictures(simulated(tmp_path))) as running:
        code, details = await refusal(running, **fields)
    assert code is expected
    assert words in details


BAD_FIRST_BYTES = {
    "nothing": b"",
    "an unknown field": b"\xa2\x06\x01x",
    "garbage": b"\xff\xfe\xfd\xfc" * 20,
    "an Open cut short": pb.ClientMessage(open=pb.Open(model="sim", stream_id="camera")).SerializeToString()[:-3],
    "text that is no UTF-8": b"\x0a\x04\x0a\x02\xff\xff",
}


@pytest.mark.parametrize("case", BAD_FIRST_BYTES)
@on_loop
async def test_a_first_message_that_is_none_ends_the_stream(tmp_path, case):
    async with real_server(simulated(tmp_path)) as running:
        code, _ = await refusal(running, BAD_FIRST_BYTES[case])
    assert code is INVALID


@on_loop
async def test_a_frame_before_open_ends_the_stream(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        frame = pb.ClientMessage(frame=pb.Frame(seq=1, payload=row(1))).SerializeToString()
        code, details = await refusal(running, frame)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "open" in details


@on_loop
async def test_a_call_that_never_opens_gives_up_its_place(tmp_path):
    async with real_server(simulated(tmp_path), max_streams=1) as running:
        running.server.frames.open_deadline_s = 0.0
        code, details = await refusal(running)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "open" in details
        running.server.frames.open_deadline_s = 20.0
        stream = await running.open()
        await stream.half_close()
        assert await stream.results() == []


SESSION_ERRORS = {
    "a second Open": (pb.ClientMessage(open=pb.Open(model="sim")).SerializeToString(), "FAILED_PRECONDITION"),
    "garbage": (b"\xff\xff\xff", "INVALID_ARGUMENT"),
    "an empty message": (b"", "INVALID_ARGUMENT"),
    "a frame cut short": (b"\x12\x50\x08\x01\x7a\x40abc", "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize("case", SESSION_ERRORS)
@on_loop
async def test_frames_before_a_session_error_are_answered_first(tmp_path, case):
    message, code = SESSION_ERRORS[case]
    async with real_server(simulated(tmp_path, alpha_ms=1)) as running:
        stream = await running.open()
        for seq in range(1, 11):
            await stream.send(seq)
        await stream.send_bytes(message)
        results = await stream.drain()
        assert [(r.seq, r.status.code) for r in results] == [(seq, pb.STATUS_OK) for seq in range(1, 11)]
        assert (await stream.call.code()).name == code
        assert not LEAK.search(await stream.call.details())


@on_loop
async def test_a_message_that_is_too_large_ends_only_its_own_stream(tmp_path):
    async with real_server(simulated(tmp_path), max_message_bytes=4096) as running:
        bad, good = await running.open(), await running.open()
        await bad.send(1, payload=bytes(5000))
        assert (await bad.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await good.send(1)
        assert (await good.result()).status.code == pb.STATUS_OK
        await good.half_close()
        assert await good.results() == []


@on_loop
async def test_an_unknown_method_is_unimplemented(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        call = running.channel.stream_stream("/forebay.v1.FrameInference/Dance")()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


@on_loop
async def test_bad_frames_take_their_place_and_their_stream_goes_on(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open(resume_from=10)
        await stream.send(9)  # below resume_from
        await stream.send(10)
        await stream.send(10)  # does not rise
        await stream.send(3)
        await stream.send(11, payload=b"")
        await stream.send(12, payload=bytes(ROW_BYTES - 1))
        await stream.send(13, payload=bytes(ROW_BYTES + 1))
        await stream.send(14, latency_budget_ms=-5.0)
        await stream.send(15, latency_budget_ms=float("nan"))
        await stream.send(16, latency_budget_ms=1e300)
        await stream.send(2**64 - 1)
        await stream.send(2**64 - 1)
        await stream.half_close()
        results = await stream.results()
    ok = {1, 10}
    assert [r.seq for r in results] == [9, 10, 10, 3, 11, 12, 13, 14, 15, 16, 2**64 - 1, 2**64 - 1]
    assert [r.status.code for r in results] == [pb.STATUS_OK if i in ok else pb.STATUS_INVALID for i in range(12)]
    for result in results:
        assert bool(result.status.message) == (result.status.code != pb.STATUS_OK)
        assert not LEAK.search(result.status.message)
        assert not (result.tensors and result.status.code != pb.STATUS_OK)
    messages = [r.status.message for r in results]
    assert messages[0] == "frame.seq is 9; it must rise, at least 10 here"
    assert messages[5] == f"frame 12 has {ROW_BYTES - 1} payload bytes; this stream takes {ROW_BYTES}"


@on_loop
async def test_budgets_are_kept_before_anything_is_executed(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=20)) as running:
        stream = await running.open(latency_budget_ms=0.0)
        before = running.version().statistics.snapshot().executions
        await stream.send(1)  # Open's budget is past when the frame is read
        await stream.send(2, latency_budget_ms=5.0)  # a lone frame takes 20 ms
        expired = await stream.results(2)
        assert running.version().statistics.snapshot().executions == before
        await stream.send(3, latency_budget_ms=5000.0)
        ok = await stream.result()
        await stream.half_close()
        assert await stream.results() == []
    assert [r.status.code for r in expired] == [pb.STATUS_EXPIRED] * 2
    assert all(r.batch_size == 0 and r.timings.execute_us == 0 and r.status.message for r in expired)
    assert (ok.status.code, ok.late_by_us) == (pb.STATUS_OK, 0)


@on_loop
async def test_the_least_urgent_priority_that_can_be_said_is_as_good_as_any(tmp_path):
    async with real_server(pictures(simulated(tmp_path))) as running:
        for fields, payload in (
            ({}, row(1)),
            ({**PICTURES, "encoding": pb.ENCODING_JPEG}, jpeg()),
        ):
            stream = await running.open(priority=2**32 - 1, **fields)
            await stream.send(1, payload=payload)
            assert (await stream.result()).status.code == pb.STATUS_OK
            await stream.half_close()
            assert await stream.results() == []
