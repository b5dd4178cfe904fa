"""`forebay serve --supervise` with real processes: a hang ends in a restart, a mistake does not."""

import os
import signal
import socket

import numpy as np

import forebay
from tests.support.real_server import ROW_BYTES, simulated
from tests.support.supervised import served

ROW = np.zeros(ROW_BYTES, np.uint8)
HANG_AT = 150  # after the executions that measure costs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def flags(repository, cache, port=0):
    address = f"127.0.0.1:{port}"
    return ["--address", address, "--model-repository", repository], {"FOREBAY_CACHE_FOLDER": str(cache)}


def test_an_engine_that_hangs_ends_in_a_restart_and_the_client_resumes(tmp_path):
    repository = simulated(tmp_path / "models", max_batch_size=1, alpha_ms=2, hang_at=HANG_AT)
    arguments, environment = flags(repository, tmp_path / "cache", free_port())
    with served(*arguments, "--supervise", environment=environment) as server:
        first = server.wait_ready()
        with (
            forebay.Client(first["address"]) as client,
            client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
        ):
            results = list(stream.map(ROW for _ in range(HANG_AT)))
            assert [result.seq for result in results] == sorted(result.seq for result in results)
            assert len(results) == HANG_AT
            assert all(result.is_ok for result in results)  # EVERY: frames in flight are sent again
            assert stream.statistics().opened == 2
        second = server.wait_ready(2)
        assert second["pid"] != first["pid"]
        assert second["address"] == first["address"]
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.wait() == 0
    assert "has hung for" in server.log
    assert "ended with code 70; starting it anew (1 of 5 in a minute)" in server.log


def test_a_server_that_is_killed_is_started_anew_and_a_signal_ends_it_for_good(tmp_path):
    arguments, environment = flags(simulated(tmp_path / "models"), tmp_path / "cache")
    with served(*arguments, "--supervise", environment=environment) as server:
        os.kill(server.wait_ready()["pid"], signal.SIGKILL)
        server.wait_ready(2)
        os.kill(server.process.pid, signal.SIGINT)
        assert server.wait() == 0
    assert "was ended by SIGKILL" in server.log


def test_a_mistake_is_not_tried_again(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments, environment = flags(simulated(tmp_path / "models"), tmp_path / "cache", taken.getsockname()[1])
        with served(*arguments, "--supervise", environment=environment) as server:
            assert server.wait() == 69
    assert server.log.count("is it in use") == 1
    assert "Traceback" not in server.log
    with served("--supervise", "--address", "0.0.0.0:0") as server:
        assert server.wait() == 2
    assert "give tls_cert and tls_key" in server.log
