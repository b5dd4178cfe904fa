"""OpenTelemetry end to end: `forebay serve`, the client library, and a collector, each a separate process."""

import asyncio
import json
import os
import signal
import sys

import grpc
import numpy as np
import pytest

import forebay.aio
from forebay.wire import inference_pb2
from tests.support.collector import collector
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import request_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, real_server, simulated
from tests.support.repository import ROOT
from tests.support.serve_process import serve

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


def environment(**more):
    return {**os.environ, **more}


async def frames(count):
    for _ in range(count):
        yield np.zeros(ROW_BYTES, np.uint8)


@on_loop
async def test_a_collector_gets_frames_below_their_clients_span_and_batches_that_link_to_them(tmp_path):
    simulated(tmp_path)
    async with (
        collector() as traces,
        serve(
            *("--model-repository", tmp_path),
            environment=environment(FOREBAY_TRACE_EVERY_FRAMES="1", OTEL_SERVICE_NAME="gate", **traces.environment),
        ) as server,
    ):
        address = await server.wait_ready()
        async with forebay.aio.Client(address) as client:
            context = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
            stream = client.stream(
                "door", model="sim", encoding="tensor", delivery="every", trace_context=lambda: context
            )
            assert len([result async for result in stream.map(frames(10))]) == 10
            await stream.close()
        assert await server.end(signal.SIGTERM) == 0, server.errors  # waiting spans are sent before the end
        rows = lambda: sum(span["attributes"]["forebay.batch.rows"] for span in traces.named("batch"))  # noqa: E731
        await traces.until(lambda: len(traces.named("frame")) == 10 and rows() == 10)
    found = traces.named("frame")
    assert {(span["trace"], span["parent"], span["state"]) for span in found} == {(TRACE_ID, PARENT_ID, "vendor=1")}
    assert {span["resource"]["service.name"] for span in found} == {"gate"}
    assert {span["attributes"]["forebay.stream"] for span in found} == {"door"}
    assert sorted(link for span in traces.named("batch") for link in span["links"]) == sorted(s["id"] for s in found)
    by_id = {span["id"]: span for span in found}
    inside = [span for span in traces.spans if span["parent"] in by_id]
    assert {span["name"] for span in inside} >= {"queue", "execute", "deliver"}
    for span in inside:
        frame = by_id[span["parent"]]
        assert frame["start_ns"] <= span["start_ns"] <= span["end_ns"] <= frame["end_ns"]
    assert "Traceback" not in server.errors
    told = [json.loads(line) for line in server.errors.splitlines()]
    (opened,) = [line for line in told if line["event"] == "stream opened"]
    assert opened["trace_id"] == TRACE_ID
    assert opened["id"] == found[0]["attributes"]["forebay.stream.id"]
    assert [line["trace_id"] for line in told if line["event"] == "stream closed"] == [TRACE_ID]


@on_loop
async def test_requests_of_the_other_protocol_bring_their_context_with_every_call(tmp_path):
    simulated(tmp_path)
    async with (
        collector() as traces,
        serve(
            *("--model-repository", tmp_path),
            environment=environment(FOREBAY_TRACE_EVERY_FRAMES="1", **traces.environment),
        ) as server,
        grpc.aio.insecure_channel(await server.wait_ready()) as channel,
    ):
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            inference_pb2.ModelInferRequest.SerializeToString,
            inference_pb2.ModelInferResponse.FromString,
        )
        wanted = {f"{number:032x}" for number in (5, 6)}
        for trace in wanted:
            request = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8))
            await infer(request, metadata=(("traceparent", f"00-{trace}-{PARENT_ID}-01"),))
        await traces.until(lambda: len(traces.named("frame")) == 2)  # while it runs
        assert {span["trace"] for span in traces.named("frame")} == wanted
        assert {span["resource"]["service.name"] for span in traces.spans} == {"forebay"}


@on_loop
async def test_a_collector_that_is_away_costs_no_frame_and_little_time_at_the_end(tmp_path):
    simulated(tmp_path)
    away = environment(FOREBAY_TRACE_EVERY_FRAMES="1", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    async with serve("--model-repository", tmp_path, environment=away) as server:
        async with forebay.aio.Client(await server.wait_ready()) as client:
            stream = client.stream("door", model="sim", encoding="tensor", delivery="every")
            results = [result async for result in stream.map(frames(50))]
            await stream.close()
        assert all(result.is_ok for result in results)
        code = await asyncio.wait_for(server.end(signal.SIGTERM), HANG_GUARD_S / 2)
    assert code == 0
    assert "Traceback" not in server.errors


@on_loop
async def test_without_the_extra_the_error_says_what_to_install(tmp_path):
    hidden = "import sys; sys.modules['opentelemetry'] = None; from forebay_server.service.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", hidden, "serve", "--address", "127.0.0.1:0", "--model-repository", tmp_path),
        env=environment(FOREBAY_TRACE_EVERY_FRAMES="100"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 69
    assert errors.decode().splitlines()[-1] == (
        "forebay: trace_every_frames needs OpenTelemetry, which is not installed: pip install '.[otel]'"
    )
    assert output == b""


@on_loop
async def test_nothing_of_it_is_imported_or_read_when_it_is_off(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream = running.stream()
        stream.call.cancel()
        stream.call = running.channel.stream_stream("/forebay.v1.FrameInference/Stream")(
            metadata=(("traceparent", TRACEPARENT),)
        )
        await stream.send_open()
        await stream.receive()
        (session,) = running.sessions
        assert session.session._recorder.record.trace is None
        assert running.server.admin.site.observer.tracing is None
        await stream.half_close()
        await stream.drain()


@pytest.mark.parametrize("context", [{}, {"traceparent": "00-zz"}, {"tracestate": "a=b"}])
def test_a_client_says_at_once_that_a_trace_context_is_none(context):
    with forebay.Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="traceparent"):
        client.stream("door", model="sim", trace_context=context)
