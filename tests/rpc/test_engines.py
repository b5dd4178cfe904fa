"""`forebay serve --engines 2` with real processes: one port, one page, one answer; and an engine process that dies."""

import contextlib
import os
import signal
import threading
import urllib.request

import grpc
import numpy as np
import pytest

import forebay
from forebay.wire import inference_pb2 as oip
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub as InferenceStub
from forebay_server.service.clock import MonotonicClock
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import ROW_BYTES, simulated
from tests.support.supervised import served

ROW = np.zeros(ROW_BYTES, np.uint8)


@contextlib.contextmanager
def group(tmp_path, *more, **options):
    repository = simulated(tmp_path / "models", **options)
    arguments = ["--address", "127.0.0.1:0", "--model-repository", repository, "--front-ends", "2", "--engines", "2"]
    environment = {"FOREBAY_CACHE_FOLDER": str(tmp_path / "cache"), "FOREBAY_ADMIN_ADDRESS": "127.0.0.1:0"}
    with served(*arguments, *more, environment=environment) as running:
        yield running, running.wait_ready()


def engines(ready):
    return [process["pid"] for process in ready["processes"] if process["role"] == "engine"]


def page(ready):
    with urllib.request.urlopen(f"http://{ready['admin_address']}/metrics", timeout=HANG_GUARD_S) as answer:
        return answer.read().decode()


def metric(text, name):
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def wait_until(condition):
    """Ask again and again, as there is nothing to wait for in another process."""
    clock, pause = MonotonicClock(), threading.Event()
    until_ns = clock.now_ns() + int(HANG_GUARD_S * 1e9)
    while not condition():
        assert clock.now_ns() < until_ns
        pause.wait(0.02)


def stub_of(ready, stack):
    own = [("grpc.use_local_subchannel_pool", 1)]
    return InferenceStub(stack.enter_context(grpc.insecure_channel(ready["address"], options=own)))


def test_counts_and_the_page_are_those_of_all_engine_processes(tmp_path):
    with group(tmp_path, instances=3) as (running, ready), contextlib.ExitStack() as stack:
        assert len(engines(ready)) == 2
        with (
            forebay.Client(ready["address"]) as client,
            client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
        ):
            assert all(result.is_ok for result in stream.map([ROW] * 40))
        asked = stub_of(ready, stack).ModelStatistics(oip.ModelStatisticsRequest(name="sim"), timeout=HANG_GUARD_S)
        (statistics,) = asked.model_stats
        assert statistics.inference_count == statistics.inference_stats.success.count == 40
        assert sum(each.batch_size * each.compute_infer.count for each in statistics.batch_stats) == 40
        wait_until(lambda: metric(page(ready), "forebay_instances") == 3)
        wait_until(lambda: metric(page(ready), "nv_inference_request_success") == 40)
        assert 'forebay_engine_memory_bytes{process="engine process 1"}' in page(ready)
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.wait() == 0, running.log
    assert "Traceback" not in running.log


@pytest.mark.parametrize("number", [0, 1])
def test_an_engine_process_that_is_killed_comes_back_and_nothing_else_ends(tmp_path, number):
    with group(tmp_path) as (running, ready), contextlib.ExitStack() as stack:
        with (
            forebay.Client(ready["address"]) as client,
            client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
        ):
            ends = [result.status for result in stream.map(frames_and_a_death(engines(ready)[number]))]
        assert len(ends) == 400, "every frame is answered, on the same connection"
        assert set(ends) <= {forebay.Status.OK, forebay.Status.FAILED}
        assert {ends[0], ends[-1]} == {forebay.Status.OK}
        wait_until(lambda: both_serve(ready))
        with (
            forebay.Client(ready["address"]) as client,
            client.stream("camera", model="sim", encoding="tensor", delivery="every") as stream,
        ):
            assert all(result.is_ok for result in stream.map([ROW] * 20))
        answer = stub_of(ready, stack).ServerReady(oip.ServerReadyRequest(), timeout=HANG_GUARD_S)
        assert answer.ready
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.wait() == 0, running.log
    assert f"engine process {number} was ended by SIGKILL; starting it anew" in running.log
    assert len(running.ready) == 1
    assert "Traceback" not in running.log


def frames_and_a_death(pid):
    for number in range(400):
        if number == 20:
            os.kill(pid, signal.SIGKILL)
        yield ROW


def both_serve(ready):
    """Whether the page has the instances of both engine processes."""
    try:
        return metric(page(ready), "forebay_instances") == 2
    except OSError:  # the first engine process is not there yet
        return False


def test_a_load_and_an_unload_are_those_of_all_and_of_one_that_starts_later(tmp_path):
    with (
        group(tmp_path, "--model-control-mode", "explicit") as (running, ready),
        contextlib.ExitStack() as stack,
    ):
        stub = stub_of(ready, stack)
        stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="sim"), timeout=HANG_GUARD_S)
        wait_until(lambda: both_serve(ready))
        os.kill(engines(ready)[1], signal.SIGKILL)
        wait_until(lambda: not both_serve(ready))
        wait_until(lambda: both_serve(ready))
        stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="sim"), timeout=HANG_GUARD_S)
        assert not stub.ModelReady(oip.ModelReadyRequest(name="sim"), timeout=HANG_GUARD_S).ready
        with pytest.raises(grpc.RpcError) as refused:
            stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="none"), timeout=HANG_GUARD_S)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.wait() == 0, running.log
