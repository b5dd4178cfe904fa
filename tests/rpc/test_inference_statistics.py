"""Counts of models, as ModelStatistics and /metrics report them."""

import asyncio
import re

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from tests.support import models
from tests.support.inference import add_sub_request, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, real_server, simulated


async def get(address, path="/metrics", request=None):
    """Status and body of one HTTP request."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request or f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = data.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


def samples(text):
    """Values by name and labels."""
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


@on_loop
async def test_statistics_count_requests_rows_batches_and_time(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        for rows in (1, 3, 3):
            await stub.ModelInfer(add_sub_request(rows=rows))
        response = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="simple"))
        (told,) = response.model_stats
        assert (told.name, told.version) == ("simple", "1")
        assert (told.inference_count, told.execution_count) == (7, 3)
        stats = told.inference_stats
        assert stats.success.count == stats.queue.count == stats.compute_infer.count == 3
        assert stats.success.ns >= stats.queue.ns + stats.compute_infer.ns > 0
        assert stats.fail.count == 0
        assert {batch.batch_size: batch.compute_infer.count for batch in told.batch_stats} == {1: 1, 3: 2}
        assert told.last_inference > 1_600_000_000_000


@on_loop
async def test_statistics_of_all_models_of_one_and_of_none(tmp_path):
    simulated(tmp_path, "a")
    simulated(tmp_path, "b")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        response = await stub.ModelStatistics(pb.ModelStatisticsRequest())
        assert sorted(told.name for told in response.model_stats) == ["a", "b"]
        with pytest.raises(grpc.aio.AioRpcError, match="'c' is not found"):
            await stub.ModelStatistics(pb.ModelStatisticsRequest(name="c"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelStatistics(pb.ModelStatisticsRequest(name="a", version="7"))
        words = "requested model version is not available for model 'a'"
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, words)


@on_loop
async def test_failures_are_counted_by_reason(tmp_path):
    models.save(models.failing(), tmp_path / "failing" / "1" / "model.onnx")
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stub = stub_of(running)
        for value in (7, 0, 7):
            call = stub.ModelInfer(request_of("failing", x=np.full((1, 4), value, np.float32)))
            assert await call.code() is (grpc.StatusCode.INTERNAL if value else grpc.StatusCode.OK)
        late = request_of("sim", input=np.zeros((1, 64), np.uint8), parameters={"timeout": 1})
        assert await stub.ModelInfer(late).code() is grpc.StatusCode.UNAVAILABLE
        await running.told()
        _, text = await get(running.server.admin_address)
        values = samples(text)
        failing = 'model="failing",version="1"'

        def failures(model, reason):
            return values[f'nv_inference_request_failure{{model="{model}",reason="{reason}",version="1"}}']

        assert failures("failing", "BACKEND") == 2
        assert values[f"nv_inference_request_success{{{failing}}}"] == 1
        assert failures("sim", "REJECTED") == 1
        counts = running.version("failing").statistics.snapshot()
        assert values[f"nv_inference_request_duration_us{{{failing}}}"] == counts.success.ns // 1000
        assert counts.fail.ns > 0


@on_loop
async def test_tags_of_a_model_are_labels_of_its_metrics(tmp_path):
    simulated(tmp_path)
    with (tmp_path / "sim" / "config.pbtxt").open("a") as file:
        file.write('\nmetric_tags { key: "site" value: "Hall \\"3\\"" } metric_tags { key: "line" value: "7" }')
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        _, text = await get(running.server.admin_address)
        labels = r'_line="7",_site="Hall \"3\"",model="sim",version="1"'
        assert samples(text)[f"nv_inference_count{{{labels}}}"] == 0
        failed = ',reason="BACKEND",version'
        assert samples(text)[f"nv_inference_request_failure{{{labels.replace(',version', failed)}}}"] == 0


@on_loop
async def test_frames_are_counted_like_requests(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream = await running.open()
        for seq in range(5):
            await stream.send(seq)
        await stream.half_close()
        await stream.results()
        await running.told()
        assert running.version().statistics.snapshot().success.count == 5


@on_loop
async def test_metrics_have_the_names_that_dashboards_know(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        status, text = await get(running.server.admin_address)
        assert status == 200
        names = set(re.findall(r"^(nv_\w+)", text, flags=re.MULTILINE))
        assert {
            "nv_inference_request_success",
            "nv_inference_request_failure",
            "nv_inference_count",
            "nv_inference_exec_count",
            "nv_inference_request_duration_us",
            "nv_inference_queue_duration_us",
            "nv_inference_compute_input_duration_us",
            "nv_inference_compute_infer_duration_us",
            "nv_inference_compute_output_duration_us",
            "nv_inference_pending_request_count",
            "nv_model_load_duration_secs",
        } <= names
        assert not [name for name in names if name.endswith("_total")]


@on_loop
async def test_pending_requests_are_all_that_are_not_executed_yet(tmp_path):
    simulated(tmp_path, max_batch_size=1, policy="window")
    async with real_server(tmp_path, devices=SimulatedDevices(), admin_address="127.0.0.1:0") as running:
        running.hold()
        request = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8))
        calls = [stub_of(running).ModelInfer(request) for _ in range(10)]
        await eventually(lambda: running.version().former.statistics().in_flight == 2)  # one runs, one is bound ahead
        await eventually(lambda: running.version().former.statistics().waiting_requests == 9)
        _, text = await get(running.server.admin_address)
        assert samples(text)['nv_inference_pending_request_count{model="sim",version="1"}'] == 9
        running.release()
        await asyncio.gather(*calls)
        await eventually(lambda: running.version().former.statistics().waiting_requests == 0)
        _, text = await get(running.server.admin_address)
        assert samples(text)['nv_inference_pending_request_count{model="sim",version="1"}'] == 0


@on_loop
async def test_the_admin_port_answers_what_it_is_asked_and_nothing_else(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        address = running.server.admin_address
        assert await get(address, "/healthz") == (200, "ok\n")
        assert await get(address, "/readyz?verbose=1") == (200, "ready\n")
        assert (await get(address, "/../etc/passwd"))[0] == 404
        assert (await get(address, request=b"POST /metrics HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await get(address, request=b"nonsense\r\n\r\n"))[0] == 400
        assert (await get(address, request=b"GET /" + b"a" * 20_000 + b"\r\n\r\n"))[0] == 400
        assert await get(address, request=b"HEAD /healthz HTTP/1.1\r\n\r\n") == (200, "")
        running.server.stop()
        await running.told()
        assert await get(address, "/readyz") == (503, "not ready\n")
