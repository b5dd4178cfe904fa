"""The sections that go beyond one interpreter or one GPU: several server processes, several GPUs."""

from collections.abc import Iterator
from typing import Any

from forebay_server.bench.gpu.lane import Setup, measure_alone, measure_lane
from forebay_server.bench.gpu.loads import (
    ServedModel,
    cameras_load,
    frames_load,
    observed,
    repeated,
    requests_load,
    write_payloads,
)
from forebay_server.bench.gpu.memory import gpu_mib
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import SIDES, ServedNetwork, gpu_server, gpu_servers

MODEL = "detector"


def processes(plan: Plan) -> Iterator[dict[str, Any]]:
    """Several server processes on one GPU, each with a port of its own, the clients divided among them."""
    for count in plan.processes:
        yield from _spread(plan, count, gpus=1)


def gpus(plan: Plan) -> Iterator[dict[str, Any]]:
    """Several GPUs: lanes of one process without gRPC, a server process for each GPU, one whose model is on all."""
    network = plan.networks[-1]
    rows = plan.batch_sizes[-1]
    base = Setup(network, plan.path(network), plan.device, rows, seconds=plan.seconds)
    batch_s = measure_alone(base)["batch_ms"] / 1e3
    for count in sorted({1, plan.gpus}):
        setup = Setup(network, plan.path(network), plan.device, rows, instances=count, gpus=count, seconds=plan.seconds)
        lane, _ = measure_lane(setup, batch_s)
        yield {"way": "lanes of one process"} | setup.facts | {"lane": lane}
    yield from _spread(plan, max(2, plan.gpus), gpus=1)
    yield from _spread(plan, max(2, plan.gpus), gpus=plan.gpus)
    payload = write_payloads(plan)[network]
    every = tuple(range(plan.gpus))
    models = {f"on_{gpu}": ServedNetwork(network, rows, gpus=(gpu,)) for gpu in every}
    models["on_all"] = ServedNetwork(network, rows, gpus=every)
    with gpu_server(plan, models) as server:
        for name, model in models.items():
            target = ServedModel([server], name, payload)
            window = len(model.gpus)  # as many in flight for each GPU
            load = requests_load(target, plan.worker_count, window, rows, SIDES[network])
            facts = {"way": "whole batches to one process", "model": name, "in_flight": plan.worker_count * window}
            yield facts | repeated(target, load, plan)


def _spread(plan: Plan, count: int, gpus: int) -> Iterator[dict[str, Any]]:
    payload = write_payloads(plan)[plan.detector]
    models_of = [
        {MODEL: ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True, gpus=(index % gpus,))}
        for index in range(count)
    ]
    workers = plan.worker_count * 2
    before_mib = gpu_mib()
    with gpu_servers(plan, models_of) as servers:
        facts = {"processes": count, "gpus": gpus, "gpu_mib": gpu_mib() - before_mib}
        target = ServedModel(servers, MODEL, payload)
        load = frames_load(target, workers, plan.window)
        cell = facts | {"way": "frames", "in_flight": workers * plan.window} | repeated(target, load, plan)
        yield cell | {"device_of_first": observed(target, load, plan)}
        for crowd in plan.crowds:
            load = cameras_load(target, workers, crowd, "every")
            yield facts | {"way": "cameras", "cameras": crowd} | repeated(target, load, plan.for_cameras)
