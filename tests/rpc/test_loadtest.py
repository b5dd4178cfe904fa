"""The load generator over real gRPC against its null server, healthy and broken."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from forebay.wire import frames_pb2 as wire
from forebay.wire import inference_pb2 as inference
from forebay_server.loadtest.arrivals import plan
from forebay_server.loadtest.cli import load_app
from forebay_server.loadtest.client import open_target
from forebay_server.loadtest.client.forebay_v1 import encode_frame
from forebay_server.loadtest.client.open_inference import RequestTemplate, outcome_of
from forebay_server.loadtest.client.words import cannot_connect, no_agent
from forebay_server.loadtest.clock import MonotonicClock
from forebay_server.loadtest.errors import CannotConnectError, StreamBrokenError, UsageError
from forebay_server.loadtest.frames import tensors
from forebay_server.loadtest.generator import Generator
from forebay_server.loadtest.null_server import Faults, NullServer
from forebay_server.loadtest.pacer import TimerfdPacer
from forebay_server.loadtest.scenario import Phase, Policy, Scenario
from forebay_server.loadtest.summary import merge, summarise
from forebay_server.loadtest.target import Delivery, Encoding, Moved, Outcome, Protocols, TargetSpec
from tests.support.guard import HANG_GUARD_S

SOURCE = tensors(5000, 1)


def spec_of(server, **fields):
    return TargetSpec(address=f"127.0.0.1:{server.port}", encoding=Encoding.TENSOR, **fields)


@contextlib.asynccontextmanager
async def null_server(faults=None):
    server = NullServer(faults)
    await server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def target_on(server, **fields):
    target = open_target(spec_of(server, **fields), 1)
    try:
        yield target
    finally:
        await target.close()


def run(coroutine):
    async def guarded():
        async with asyncio.timeout(HANG_GUARD_S):
            return await coroutine

    return asyncio.run(guarded())


def offer(scenario, faults=None, **fields):
    """Run a scenario against a null server in the same process; return the merged run."""

    async def offering():
        clock = MonotonicClock()
        async with null_server(faults) as server, target_on(server, **fields) as target:
            generator = Generator(
                scenario=scenario,
                plans=plan(scenario),
                target=target,
                source=SOURCE,
                clock=clock,
                pacer=TimerfdPacer(clock),
            )
            await generator.prepare()
            return merge([await generator.run(clock.now_ns() + 10_000_000)])

    return run(offering())


@pytest.mark.parametrize("payload_bytes", [0, 1, 127, 128, 20_000, 3_000_000])
def test_a_frame_encoded_by_hand_is_what_protobuf_reads(payload_bytes):
    payload = os.urandom(payload_bytes)
    frame = wire.ClientMessage.FromString(encode_frame(2**40, 1_700_000_000_000_000, payload)).frame
    assert (frame.seq, frame.capture_time_us, frame.payload) == (2**40, 1_700_000_000_000_000, payload)


def test_frames_leave_at_their_instants_and_every_one_is_answered():
    scenario = Scenario(streams=4, fps=25, duration_s=1, policy=Policy.BLOCK, drain_s=5)
    merged = offer(scenario)
    summary = summarise(scenario, merged, 100)
    assert summary.accounting.answered == summary.accounting.offered == 100
    assert not summary.faults
    early_ns = merged.rows["fired_ns"] - merged.rows["intended_ns"]
    assert early_ns.min() >= 0


def test_an_injected_stall_and_a_dropped_frame_are_found():
    scenario = Scenario(streams=1, fps=50, duration_s=1, policy=Policy.BLOCK, drain_s=1)
    merged = offer(scenario, Faults(stall_at_frame=25, stall_ms=50, drop_frame=40))
    summary = summarise(scenario, merged, 100)
    assert summary.accounting.lost == 1
    assert merged.rows[39]["outcome"] == Outcome.LOST
    stalled = merged.rows[24]
    assert (stalled["done_ns"] - stalled["intended_ns"]) / 1e6 >= 50
    assert not summary.faults


@pytest.mark.parametrize(
    ("faults", "fault"),
    [
        (Faults(duplicate_frame=3), "already answered"),
        (Faults(garbage_frame=3), "could not be understood"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_named(faults, fault):
    scenario = Scenario(fps=50, duration_s=0.5, policy=Policy.BLOCK, drain_s=0.5)
    assert fault in summarise(scenario, offer(scenario, faults), 100).faults[0]


def test_answers_in_the_wrong_order_are_counted():
    merged = offer(Scenario(fps=50, duration_s=0.5, policy=Policy.BLOCK), Faults(swap_frame=5))
    assert merged.counters.out_of_order == 1
    assert merged.counters.answers == {"OK": 25}


def test_a_stream_that_is_aborted_is_opened_again_and_the_run_goes_on():
    scenario = Scenario(fps=50, duration_s=0.6, policy=Policy.BLOCK)
    merged = offer(scenario, Faults(break_at_frame=10))
    summary = summarise(scenario, merged, 100)
    assert merged.counters.broken_streams == 1
    assert "INTERNAL: " in merged.counters.first_error
    assert summary.accounting.is_balanced
    assert summary.accounting.answered > 15


def test_opening_carries_what_was_asked_for():
    async def opening():
        async with null_server() as server, target_on(server, delivery=Delivery.EVERY, window=3, model="m") as target:
            stream = await target.open("camera-1")
            await stream.send(1, 42, b"x" * 100)
            answer = await stream.receive()
            await stream.finish()
            assert await stream.receive() is None
            return stream.info, answer

    info, answer = run(opening())
    assert (info.model, info.delivery, info.window) == ("m", "DELIVERY_EVERY", 3)
    assert info.input_bytes == 3 * 224 * 224
    assert not isinstance(answer, Moved)
    assert (answer.seq, answer.outcome, answer.capture_time_us) == (1, Outcome.OK, 42)


@pytest.mark.parametrize("protocol", [Protocols.FOREBAY, Protocols.OPEN_INFERENCE_STREAM])
def test_streams_are_spread_over_several_servers_and_a_dead_one_is_left_out(protocol):
    async def opening():
        async with null_server() as first, null_server() as second:
            address = f"127.0.0.1:1,127.0.0.1:{first.port},127.0.0.1:{second.port}"
            target = open_target(TargetSpec(address=address, encoding=Encoding.TENSOR, protocol=protocol), 8)
            streams = [await target.open(f"camera-{index}") for index in range(8)]
            places = [stream._place.address for stream in streams]
            for stream in streams:
                stream.cancel()
            await target.close()
            return [places.count(f"127.0.0.1:{port}") for port in (first.port, second.port)]

    counts = run(opening())
    assert sum(counts) == 8
    assert min(counts) >= 3


def test_an_address_that_is_none_is_an_error_of_usage():
    result = CliRunner().invoke(load_app, ["--address", "127.0.0.1:8001,b", "--duration", "1"])
    assert result.exit_code == 2
    assert "--address: 'b' is no address; give host:port" in result.output


@pytest.mark.parametrize(
    ("faults", "timeout_s", "words"),
    [
        (Faults(never_open=True), 0.3, "did not open a stream within 0.3 s"),
        (Faults(garbage_open=True), HANG_GUARD_S, "does not speak forebay.v1"),
    ],
)
def test_a_server_that_does_not_open_streams_is_no_server(faults, timeout_s, words):
    async def opening():
        async with null_server(faults) as server, target_on(server, connect_timeout_s=timeout_s) as target:
            await target.open("camera-1")

    with pytest.raises(CannotConnectError, match=words):
        run(opening())


@pytest.mark.parametrize("protocol", list(Protocols))
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: no server listens; start `forebay serve`"),
        ("unix:/no/such.sock", "unix:/no/such.sock: no server listens"),
    ],
)
def test_where_nobody_listens_the_error_says_what_to_do(protocol, address, words):
    async def opening():
        target = open_target(TargetSpec(address=address, encoding=Encoding.TENSOR, protocol=protocol), 1)
        try:
            await target.open("camera-1")
        finally:
            await target.close()

    with pytest.raises(CannotConnectError) as caught:
        run(opening())
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        ("UNAVAILABLE", "errors resolving x:1: [hostname lookup failed for x]", "x:1: the host's name is not known"),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Socket closed", "x:1: it hangs up; a server"),
        ("UNAVAILABLE", "failed to connect to all addresses; Ssl handshake failed", "x:1: TLS does not work there"),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: INTERNAL: Trying to connect an http1.x server",
            "x:1: HTTP/1 is spoken there: is it an admin port?",
        ),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; attempt timed out before receiving SETTINGS frame",
            "x:1: it takes connections and says nothing",
        ),
        (
            "UNIMPLEMENTED",
            "model 'm' takes no pictures; send TENSOR",
            "x:1: model 'm' takes no pictures; send TENSOR: give --encoding tensor",
        ),
        ("UNIMPLEMENTED", "Method not found!", "x:1: the server does not serve this protocol"),
        ("UNAVAILABLE", "the server is shutting down", "x:1: UNAVAILABLE: the server is shutting down"),
        ("NOT_FOUND", "", "x:1: NOT_FOUND"),
    ],
)
def test_what_grpc_says_about_a_connection_becomes_words_that_help(code, details, words):
    assert cannot_connect("x:1", grpc.StatusCode[code], details).startswith(words)


def test_an_agent_that_is_not_there_is_named_with_what_to_do():
    words = no_agent("x:1", grpc.StatusCode.UNAVAILABLE, "failed to connect: Connection refused (111)")
    assert words == "no agent listens at x:1; start one there: `forebay load agent --listen HOST:PORT`"
    assert no_agent("x:1", grpc.StatusCode.CANCELLED, "") == "the agent x:1 is gone: CANCELLED"


def test_a_ca_file_that_cannot_be_read_is_the_users_mistake(tmp_path):
    with pytest.raises(UsageError, match="--tls-ca"):
        open_target(TargetSpec(ca_file=str(tmp_path / "none.pem")), 1)


def test_a_stream_whose_server_goes_away_is_broken():
    async def losing():
        async with null_server() as server, target_on(server) as target:
            stream = await target.open("camera-1")
            await server.stop()
            while True:
                await stream.receive()

    with pytest.raises(StreamBrokenError):
        run(losing())


@pytest.mark.parametrize("protocol", [Protocols.OPEN_INFERENCE_STREAM, Protocols.OPEN_INFERENCE_UNARY])
def test_a_server_of_the_open_inference_protocol_is_measured_by_the_same_run(protocol):
    scenario = Scenario(streams=2, fps=20, duration_s=0.5, policy=Policy.BLOCK, phase=Phase.EVEN)
    merged = offer(scenario, Faults(delay_ms=2), protocol=protocol)
    summary = summarise(scenario, merged, 100)
    assert merged.counters.answers == {"OK": 20}
    assert not summary.faults
    assert not summary.stages


def test_errors_of_the_open_inference_protocol_become_outcomes():
    merged = offer(
        Scenario(fps=50, duration_s=0.4, policy=Policy.BLOCK),
        Faults(supersede_every=5),
        protocol=Protocols.OPEN_INFERENCE_STREAM,
    )
    assert merged.counters.answers == {"OK": 16, "SUPERSEDED": 4}
    assert outcome_of("[request id: 7] Request timeout expired") is Outcome.EXPIRED
    assert outcome_of("Exceeds maximum queue size") is Outcome.OVERLOADED
    assert outcome_of("onnx runtime error 2") is Outcome.FAILED


def test_an_open_inference_request_encoded_by_hand_is_what_protobuf_reads():
    metadata = inference.ModelMetadataResponse(name="m", versions=["3"])
    metadata.inputs.add(name="a", datatype="FP32", shape=[-1, 2])
    metadata.inputs.add(name="b", datatype="UINT8", shape=[-1, 3])
    template = RequestTemplate(TargetSpec(model="m", budget_ms=50), metadata)
    request = inference.ModelInferRequest.FromString(template.encode(12, b"01234567abc"))
    assert (request.id, request.model_name, request.parameters["timeout"].int64_param) == ("12", "m", 50_000)
    assert [(i.name, list(i.shape)) for i in request.inputs] == [("a", [1, 2]), ("b", [1, 3])]
    assert list(request.raw_input_contents) == [b"01234567", b"abc"]
    assert template.info.input_bytes == 11


def test_a_model_whose_shape_varies_needs_one():
    metadata = inference.ModelMetadataResponse(name="m")
    metadata.inputs.add(name="a", datatype="UINT8", shape=[-1, 3, -1, -1])
    with pytest.raises(UsageError, match="--shape"):
        RequestTemplate(TargetSpec(), metadata)
    assert RequestTemplate(TargetSpec(shape=(3, 8, 8)), metadata).info.input_bytes == 192


@pytest.fixture
def command(monkeypatch):
    """The command line in this process; its tuning of the process is undone."""
    monkeypatch.setenv("GRPC_EXPERIMENTS", os.environ.get("GRPC_EXPERIMENTS", ""))
    monkeypatch.setenv("GRPC_VERBOSITY", os.environ.get("GRPC_VERBOSITY", ""))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(load_app, list(arguments), prog_name="forebay load")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--assert", "p99 fast"], "does not parse"),
        (["--duration", "soon"], "--duration 'soon' is no time"),
        (["--cameras", "0"], "--cameras must be more than 0, not 0"),
        (["--duration", "0"], "--duration must be more than 0, not 0"),
        (["--rate", "-1"], "--rate must be more than 0, not -1"),
        (["--connect-ramp", "90s"], "--connect-ramp must be shorter than the run, --duration"),
        (["search", "--slo-p99", "0ms"], "which no frame can keep"),
        (["--frames", "no-such.mp4"], "there is no video or folder no-such.mp4"),
        (["--size", "640"], "--size is WIDTHxHEIGHT"),
        (["--shape", "3xx"], "whole numbers"),
        (["--burst-every", "3", "--encoding", "png"], "needs --encoding jpeg"),
        (["--protocol", "oip-stream", "--encoding", "jpeg"], "sends tensors"),
        (["--json", "no/such/folder/run.json"], "there is no folder"),
        (["--trace", "no-such.csv"], "cannot read the trace"),
        (["--arrival", "sometimes"], "is not one of"),
        (["compare", "no-such.json", "other.json"], "cannot read no-such.json"),
        (["search", "--slo-p99", "fast"], "is no time"),
    ],
)
def test_what_makes_no_sense_is_exit_code_2_and_one_line(command, arguments, words):
    result = command(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_help_names_the_subcommands(command):
    result = command("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("search", "compare", "agent", "--assert", "--html"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_says_that_there_is_no_answer(number):
    async def interrupted():
        async with null_server() as server:
            search = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "forebay_server.loadtest", "search", "--address", f"127.0.0.1:{server.port}"),
                *("--shape", "1000", "--duration", "600"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            while not server.frame_count:
                await asyncio.sleep(0.01)
            search.send_signal(number)
            said, complaints = await search.communicate()
        return search.returncode, said.decode(), complaints.decode()

    code, said, complaints = run(interrupted())
    assert code == 130
    assert said.startswith("capacity: interrupted, no answer\n")
    assert complaints == ""


@pytest.mark.slow
def test_the_command_runs_two_processes_and_reports_what_they_saw(tmp_path):
    """From the command line to the report: two generator processes, one null server, real time."""
    address = f"unix:{tmp_path}/null.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "forebay_server.loadtest.null_server", "--listen", address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout.readline().startswith("listening")
        options = "--cameras 4 --fps 20 --duration 1 --policy block --processes 2 --shape 1000 --no-calibrate"
        asserts = ["--assert", "lost=0", "--assert", "offered=80"]
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "forebay_server.loadtest",
                "--address",
                address,
                *options.split(),
                *asserts,
                "--json",
                "-",
            ],
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )
    finally:
        server.terminate()
        server.wait(HANG_GUARD_S)
        server.stdout.close()
    assert finished.stdout, finished.stderr
    document = json.loads(finished.stdout)
    assert finished.returncode == document["exit_code"]
    # A second is too short for p99, and the report states this instead of a number; on a starved host the generator may
    # have been late as well.
    assert document["verdict"] in {"INCONCLUSIVE", "INVALID"}
    assert [item["holds"] for item in document["asserts"]] == [True, True]
    assert document["sent"] == document["answered"] == 80
    assert document["generator"]["processes"] == 2
    assert [stream["offered"] for stream in document["streams"]] == [20] * 4


@pytest.mark.slow
def test_no_server_is_exit_code_5_and_says_where(tmp_path):
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "forebay_server.loadtest",
            "--address",
            "127.0.0.1:1",
            "--shape",
            "10",
            "--json",
            str(tmp_path / "x"),
        ],
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
        check=False,
    )
    assert finished.returncode == 5
    assert finished.stderr.startswith("forebay load: 127.0.0.1:1")
    assert "Traceback" not in finished.stderr
