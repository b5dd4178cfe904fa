"""`forebay serve --processes` with real processes behind one port."""

import contextlib
import json
import os
import select
import signal
import socket
import urllib.request

import numpy as np
import psutil
import pytest

import forebay
from forebay_server.service.clock import MonotonicClock
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import ROW_BYTES, simulated
from tests.support.supervised import served

ROW = np.zeros(ROW_BYTES, np.uint8)
CLIENTS = 24  # that all meet one of two is a matter of 2^-23


def flags(tmp_path, *more):
    repository = simulated(tmp_path / "models")
    return ["--address", "127.0.0.1:0", "--model-repository", repository, "--processes", "2", *more], {
        "FOREBAY_CACHE_FOLDER": str(tmp_path / "cache"),
        "FOREBAY_ADMIN_ADDRESS": "127.0.0.1:0",
    }


def requests_of(process):
    with urllib.request.urlopen(f"http://{process['admin_address']}/metrics", timeout=HANG_GUARD_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("nv_inference_request_success"))


def ask(address):
    with (
        forebay.Client(address) as client,
        client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
    ):
        assert [result.is_ok for result in stream.map([ROW])] == [True]


def test_two_servers_share_a_port_and_a_signal_drains_both(tmp_path):
    ready_file = tmp_path / "ready.json"
    arguments, environment = flags(tmp_path, "--ready-file", ready_file)
    with served(*arguments, environment=environment) as group:
        ready = group.wait_ready()
        assert json.loads(ready_file.read_text()) == ready
        assert ready["pid"] == group.process.pid
        assert len({process["pid"] for process in ready["processes"]} - {group.process.pid}) == 2
        for _ in range(CLIENTS):
            ask(ready["address"])
        shares = [requests_of(process) for process in ready["processes"]]
        assert sum(shares) == CLIENTS
        assert min(shares) > 0
        with served("--address", ready["address"]) as other:
            assert other.wait() == 69
        assert "is it in use" in other.log
        os.kill(group.process.pid, signal.SIGUSR1)
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0
    assert len(group.ready) == 1
    assert group.log.count("log level changed") == 2
    assert "Traceback" not in group.log


@pytest.mark.parametrize("more", [[], ["--supervise"]])
def test_a_signal_while_the_first_one_starts_drains_it_and_starts_no_other(tmp_path, more):
    arguments, environment = flags(tmp_path, *more)
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
            assert len(everyone) == 5  # the parent, two supervisors, two servers
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


def test_one_that_is_killed_ends_the_group_with_its_code(tmp_path):
    arguments, environment = flags(tmp_path)
    with served(*arguments, environment=environment) as group:
        os.kill(group.wait_ready()["processes"][1]["pid"], signal.SIGKILL)
        assert group.wait() == 128 + signal.SIGKILL
    assert "server process 1 was ended by SIGKILL; ending the others" in group.log


def test_the_servers_end_when_the_process_that_started_them_is_killed(tmp_path):
    arguments, environment = flags(tmp_path)
    with contextlib.ExitStack() as stack, served(*arguments, environment=environment) as group:
        ends = [os.pidfd_open(process["pid"]) for process in group.wait_ready()["processes"]]
        for end in ends:
            stack.callback(os.close, end)
        group.process.kill()
        for end in ends:
            assert select.select([end], [], [], HANG_GUARD_S)[0]


def test_one_that_is_supervised_comes_back(tmp_path):
    arguments, environment = flags(tmp_path, "--supervise")
    with served(*arguments, environment={**environment, "FOREBAY_LOG_LEVEL": "info"}) as group:
        ready = group.wait_ready()
        os.kill(ready["processes"][0]["pid"], signal.SIGKILL)
        again = group.wait_ready(2)
        assert again["pid"] not in {process["pid"] for process in ready["processes"]}
        assert again["address"] == ready["address"]
        os.kill(group.process.pid, signal.SIGINT)
        assert group.wait() == 0
    assert "was ended by SIGKILL; starting it anew" in group.log


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--uds", "s.sock"], 2, "a unix socket belongs to one process"),
        (["--model-control-mode", "explicit"], 2, "use poll or none"),
        (["--ready-file", "no/such/folder/ready"], 73, "give another --ready-file"),
        (["--model-repository", "no-such-folder"], 65, "no-such-folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_process_stays(tmp_path, more, code, words):
    arguments, environment = flags(tmp_path, *more)
    with served(*arguments, environment=environment) as group:
        assert group.wait() == code
    assert words in group.log
    assert "Traceback" not in group.log
    assert not group.ready


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments, environment = flags(tmp_path, "--address", f"127.0.0.1:{taken.getsockname()[1]}")
        with served(*arguments, environment=environment) as group:
            assert group.wait() == 69
    assert group.log.count("is it in use") == 1


def test_a_server_that_says_so_shares_its_port(tmp_path):
    arguments, environment = flags(tmp_path, "--processes", "1", "--share-port")
    with served(*arguments, environment=environment) as first:
        address = first.wait_ready()["address"]
        with served(*arguments, "--address", address, environment=environment) as second:
            assert second.wait_ready()["address"] == address
            ask(address)
