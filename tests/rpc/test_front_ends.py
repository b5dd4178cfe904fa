"""`forebay serve --front-ends` with real processes: readiness, deaths, signals, and what cannot be."""

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
import urllib.request

import grpc
import numpy as np
import psutil
import pytest

import forebay
from forebay.wire import inference_pb2 as oip
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub as InferenceStub
from forebay_server.service.clock import MonotonicClock
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import ROW_BYTES, simulated
from tests.support.supervised import served

ROW = np.zeros(ROW_BYTES, np.uint8)
CLIENTS = 24  # that all meet one of two is a matter of 2^-23


def flags(tmp_path, *more):
    repository = simulated(tmp_path / "models")
    return ["--address", "127.0.0.1:0", "--model-repository", repository, "--front-ends", "2", *more], {
        "FOREBAY_CACHE_FOLDER": str(tmp_path / "cache"),
        "FOREBAY_ADMIN_ADDRESS": "127.0.0.1:0",
    }


def pids(ready, role):
    return [process["pid"] for process in ready["processes"] if process["role"] == role]


def requests_of(ready):
    with urllib.request.urlopen(f"http://{ready['admin_address']}/metrics", timeout=HANG_GUARD_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("nv_inference_request_success"))


def wait_requests(ready, count):
    """Wait until the admin port has so many: front-end processes tell what ended four times a second."""
    deadline = time.monotonic() + HANG_GUARD_S
    while (found := requests_of(ready)) != count:
        assert found < count
        assert time.monotonic() < deadline, f"{found} of {count} requests"


def ask(address):
    with (
        forebay.Client(address) as client,
        client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
    ):
        assert [result.is_ok for result in stream.map([ROW])] == [True]


def wait_gone(pid):
    with contextlib.suppress(ProcessLookupError):
        end = os.pidfd_open(pid)
        try:
            assert select.select([end], [], [], HANG_GUARD_S)[0]
        finally:
            os.close(end)


def test_processes_share_a_port_and_a_signal_drains_them(tmp_path):
    ready_file = tmp_path / "ready.json"
    arguments, environment = flags(tmp_path, "--ready-file", ready_file)
    with served(*arguments, environment=environment) as group:
        ready = group.wait_ready()
        assert json.loads(ready_file.read_text()) == ready
        assert ready["pid"] == group.process.pid
        assert ready["models"] == {"sim": ["1"]}
        assert (len(pids(ready, "engine")), len(pids(ready, "front-end"))) == (1, 2)
        for _ in range(CLIENTS):
            ask(ready["address"])
        wait_requests(ready, CLIENTS)
        with served("--address", ready["address"]) as other:
            assert other.wait() == 69
        assert "is it in use" in other.log
        os.kill(group.process.pid, signal.SIGUSR1)
        group.wait_log("log level changed", 3)
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0, group.log
    assert len(group.ready) == 1
    assert group.log.count("log level changed") == 3
    assert "Traceback" not in group.log


def test_statistics_have_the_refusals_of_every_process_at_once(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment=environment) as group, contextlib.ExitStack() as stack:
        address = group.wait_ready()["address"]
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
        stubs = [
            InferenceStub(stack.enter_context(grpc.insecure_channel(address, options=own))) for _ in range(CLIENTS)
        ]
        for count, stub in enumerate(stubs, 1):
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(oip.ModelInferRequest(model_name="sim"), timeout=HANG_GUARD_S)
            asked = stubs[-count].ModelStatistics(oip.ModelStatisticsRequest(name="sim"), timeout=HANG_GUARD_S)
            assert asked.model_stats[0].inference_stats.fail.count == count


def test_a_limit_of_streams_is_one_of_all_processes(tmp_path):
    arguments, environment = flags(tmp_path)
    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
    left = threading.Event()

    def requests():
        yield oip.ModelInferRequest(model_name="none")
        left.wait(HANG_GUARD_S)

    with (
        served(*arguments, environment={**environment, "FOREBAY_MAX_STREAMS": "3"}) as group,
        contextlib.ExitStack() as stack,
    ):
        address = group.wait_ready()["address"]
        stack.callback(left.set)
        ends, calls = [], []  # a call that is let go of is cancelled
        for _ in range(CLIENTS):
            stub = InferenceStub(stack.enter_context(grpc.insecure_channel(address, options=own)))
            calls.append(stub.ModelStreamInfer(requests(), timeout=HANG_GUARD_S))
            try:
                ends.append(next(calls[-1]).error_message != "")
            except grpc.RpcError as error:
                ends.append(error.code())
        assert ends == [True] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * (CLIENTS - 3)


def test_a_signal_while_the_first_one_starts_drains_it(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment=environment) as group:
        started = started_by(group.process.pid)
        os.kill(group.process.pid, signal.SIGHUP)
        assert group.wait() == 0, group.log
        assert not started.is_running()
    assert not group.ready


def test_a_group_that_all_get_a_signal_with_drains_once(tmp_path):
    """As systemd does: every process of the service is signalled, and the parent passes the signal on."""
    arguments, environment = flags(tmp_path, "--supervise")
    with served(*arguments, environment={**environment, "FOREBAY_DRAIN_GRACE_S": "60"}) as group:
        ready = group.wait_ready()
        with (
            forebay.Client(ready["address"]) as client,
            client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
        ):
            assert next(stream.map([ROW])).is_ok
            everyone = [psutil.Process(group.process.pid)]
            everyone += everyone[0].children(recursive=True)
            assert (
                len(everyone) == 6
            )  # the supervisor, the parent, engine process, fork server, two front-end processes
            for process in everyone:
                process.send_signal(signal.SIGTERM)
        assert group.wait() == 0, group.log


def started_by(pid):
    """The first child of a process, once there is one."""
    parent, clock = psutil.Process(pid), MonotonicClock()
    until_ns = clock.now_ns() + int(HANG_GUARD_S * 1e9)
    while not (found := parent.children()):
        assert clock.now_ns() < until_ns
        select.select([], [], [], 0.005)
    return found[0]


def test_a_front_end_process_that_is_killed_comes_back_and_nothing_else_ends(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment={**environment, "FOREBAY_LOG_LEVEL": "info"}) as group:
        ready = group.wait_ready()
        parent = psutil.Process(group.process.pid)
        before = {child.pid for child in parent.children()}
        killed = pids(ready, "front-end")[1]
        os.kill(killed, signal.SIGKILL)
        clock = MonotonicClock()
        until_ns = clock.now_ns() + int(HANG_GUARD_S * 1e9)
        while not (new := {child.pid for child in parent.children()} - before):
            assert clock.now_ns() < until_ns
            select.select([], [], [], 0.005)
        for _ in range(CLIENTS):
            ask(ready["address"])
        assert {child.pid for child in parent.children()} == before - {killed} | new
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0, group.log
    assert "front-end process 1 was ended by SIGKILL; starting it anew" in group.log
    assert len(group.ready) == 1


def fork_server_of(pid):
    """The pid of a group's fork server, as soon as it runs."""
    parent, clock = psutil.Process(pid), MonotonicClock()
    until_ns = clock.now_ns() + int(HANG_GUARD_S * 1e9)
    while True:
        for child in parent.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "fork-server" in child.cmdline():
                    return child.pid
        assert clock.now_ns() < until_ns
        select.select([], [], [], 0.005)


def test_a_fork_server_that_dies_ends_no_other_process_and_is_started_anew(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment={**environment, "FOREBAY_LOG_LEVEL": "info"}) as group:
        ready = group.wait_ready()
        front_ends = set(pids(ready, "front-end"))
        (server,) = {child.pid for child in psutil.Process(group.process.pid).children()} - {
            process["pid"] for process in ready["processes"]
        }
        os.kill(server, signal.SIGKILL)
        wait_gone(server)
        ask(ready["address"])
        os.kill(min(front_ends), signal.SIGKILL)  # its successor has to wait for the new fork server
        wait_gone(min(front_ends))
        for _ in range(CLIENTS):
            ask(ready["address"])
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0, group.log
    assert "the process that starts front-end processes was ended by SIGKILL; starting it anew" in group.log


def test_a_fork_server_that_is_killed_while_it_imports_is_started_anew(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment=environment) as group:
        os.kill(fork_server_of(group.process.pid), signal.SIGKILL)  # it imports for longer than this takes
        ask(group.wait_ready()["address"])
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0, group.log
    assert "the process that starts front-end processes was ended by SIGKILL; starting it anew" in group.log


def test_without_the_engine_process_all_end_with_70(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment=environment) as group:
        ready = group.wait_ready()
        os.kill(pids(ready, "engine")[0], signal.SIGKILL)
        assert group.wait() == 70
        for pid in pids(ready, "front-end"):
            wait_gone(pid)
    assert "the engine process was ended by SIGKILL; ending all" in group.log


def test_the_processes_end_when_their_parent_is_killed(tmp_path):
    arguments, environment = flags(tmp_path)
    with contextlib.ExitStack() as stack, served(*arguments, environment=environment) as group:
        ends = [os.pidfd_open(process["pid"]) for process in group.wait_ready()["processes"]]
        for end in ends:
            stack.callback(os.close, end)
        group.process.kill()
        for end in ends:
            assert select.select([end], [], [], HANG_GUARD_S)[0]


def test_a_supervised_group_comes_back(tmp_path):
    arguments, environment = flags(tmp_path, "--supervise")
    with served(*arguments, environment={**environment, "FOREBAY_LOG_LEVEL": "info"}) as group:
        ready = group.wait_ready()
        os.kill(pids(ready, "engine")[0], signal.SIGKILL)
        again = group.wait_ready(2)
        assert again["pid"] != ready["pid"]
        ask(again["address"])
        os.kill(group.process.pid, signal.SIGINT)
        assert group.wait() == 0, group.log
    assert "the server ended with code 70; starting it anew" in group.log


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--ready-file", "no/such/folder/ready"], 73, "there is no folder no/such/folder; make it with: mkdir"),
        (["--model-repository", "no-such-folder"], 65, "no-such-folder"),
        (["--front-ends", "60"], 2, "give at most"),
        (["--front-ends", "-1"], 2, "give auto, or a number from 0 to 60"),
        (["--front-ends", "many"], 2, "give auto, or a number from 0 to 60"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], 2, "none.pem"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_process_stays(tmp_path, more, code, words):
    arguments, environment = flags(tmp_path, *more)
    with served(*arguments, environment=environment) as group:
        assert group.wait() == code
    assert words in group.log
    assert "Traceback" not in group.log
    assert not group.ready


def test_a_model_that_cannot_be_loaded_is_one_line_of_all_processes(tmp_path):
    arguments, environment = flags(tmp_path)
    (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
    (tmp_path / "models" / "bad" / "1" / "model.onnx").write_text("no model")
    with served(*arguments, environment={**environment, "FOREBAY_LOG_LEVEL": "error"}) as group:
        assert group.wait() == 65
    assert [line.startswith("forebay: bad: ") for line in group.log.splitlines()] == [True]


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments, environment = flags(tmp_path, "--address", f"127.0.0.1:{taken.getsockname()[1]}")
        with served(*arguments, environment=environment) as group:
            assert group.wait() == 69
    assert group.log.count("is it in use") == 1


def test_the_unix_socket_is_served_too(tmp_path):
    arguments, environment = flags(tmp_path, "--uds", tmp_path / "s.sock")
    with served(*arguments, environment=environment) as group:
        ready = group.wait_ready()
        assert ready["uds"] == str(tmp_path / "s.sock")
        ask(f"unix:{tmp_path / 's.sock'}")
        ask(ready["address"])


def test_a_server_that_says_so_shares_its_port(tmp_path):
    arguments, environment = flags(tmp_path, "--front-ends", "0", "--share-port")
    with served(*arguments, environment=environment) as first:
        address = first.wait_ready()["address"]
        with served(*arguments, "--address", address, environment=environment) as second:
            assert second.wait_ready()["address"] == address
            ask(address)
