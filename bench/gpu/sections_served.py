"""The sections that serve from one process over gRPC: closed loop, cameras, and where the server's CPU goes."""

import time
from collections.abc import Iterator
from typing import Any

from forebay_server.bench.gpu.loads import (
    CLIENT_START_S,
    Load,
    ServedModel,
    cameras_load,
    frames_load,
    observed,
    repeated,
    requests_load,
    write_payloads,
)
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import SIDES, ServedNetwork, gpu_server
from forebay_server.bench.gpu.threads import SAMPLES_PER_S, hottest, start_sampling

LARGEST_WINDOW = 32
SAMPLED_S = 4.0
FUNCTIONS_KEPT = 25
CONTRASTS = (("raw", 32, "latest", True), ("raw", 64, "latest", True), ("jpeg", 32, "latest", True),
             ("raw", 32, "every", False))  # fmt: skip
"""Encoding, cameras, delivery and whether results are typed: cells beside those of every number of cameras."""


def served(plan: Plan) -> Iterator[dict[str, Any]]:
    """Frames of one row on streams, with raw and with typed results, and requests of whole batches."""
    payloads = write_payloads(plan)
    models = _models(plan)
    with gpu_server(plan, models) as server:
        for name, model in models.items():
            target = ServedModel([server], name, payloads[model.network])
            for way, load, in_flight in _ways(plan, target, model):
                cell = {"network": model.network, "rows": model.max_batch_size, "way": way, "in_flight": in_flight}
                cell |= repeated(target, load, plan)
                keeps = way == "frames, detections"
                path = plan.work / "trace-served-detector.json" if keeps else None
                yield cell | {"device": observed(target, load, plan, path)}


def _models(plan: Plan) -> dict[str, ServedNetwork]:
    models = {}
    for network in dict.fromkeys((plan.detector, plan.networks[-1])):
        for rows in plan.batch_sizes:
            models[f"{network}_b{rows}"] = ServedNetwork(network, rows)
            if network == plan.detector and rows == plan.batch_sizes[-1]:
                models[f"{network}_b{rows}_typed"] = ServedNetwork(network, rows, is_typed=True)
    return models


def _ways(plan: Plan, target: ServedModel, model: ServedNetwork) -> Iterator[tuple[str, Load, int]]:
    """Frames at every batch size; whole batches of more than one row, which need no typed results."""
    rows, workers = model.max_batch_size, plan.worker_count
    window = max(1, min(LARGEST_WINDOW, 3 * rows // workers))
    way = "frames, detections" if model.is_typed else "frames"
    yield way, frames_load(target, workers, window), window * workers
    if rows > 1 and not model.is_typed:
        side = SIDES[model.network]
        yield "requests of whole batches", requests_load(target, workers, 1, rows, side), workers


def cameras(plan: Plan) -> Iterator[dict[str, Any]]:
    """1 to 64 cameras at 30 fps on the detector, raw and JPEG; then LATEST streams, and tensors for results."""
    payloads = write_payloads(plan)
    rows = plan.batch_sizes[-1]
    models = {"typed": ServedNetwork(plan.detector, rows, is_typed=True), "tensors": ServedNetwork(plan.detector, rows)}
    usual = [("raw", count, "every", True) for count in plan.cameras]
    usual += [("jpeg", count, "every", True) for count in plan.jpeg_cameras]
    contrasts = [cell for cell in CONTRASTS if cell[1] in plan.cameras] or [("raw", plan.cameras[-1], "latest", True)]
    with gpu_server(plan, models) as server:
        for encoding, count, delivery, is_typed in (*usual, *contrasts):
            model, is_jpeg = "typed" if is_typed else "tensors", encoding == "jpeg"
            target = ServedModel([server], model, payloads["jpeg" if is_jpeg else plan.detector], is_jpeg)
            load = cameras_load(target, plan.worker_count, count, delivery)
            facts = {"encoding": encoding, "cameras": count, "delivery": delivery, "results": model}
            yield facts | repeated(target, load, plan.for_cameras)


def profile(plan: Plan) -> Iterator[dict[str, Any]]:
    """Frames in a closed loop while py-spy notes which functions hold the interpreter; nothing without py-spy."""
    payloads = write_payloads(plan)
    rows = plan.batch_sizes[-1]
    models = {"typed": ServedNetwork(plan.detector, rows, is_typed=True), "tensors": ServedNetwork(plan.detector, rows)}
    with gpu_server(plan, models) as server:
        for name in models:
            target = ServedModel([server], name, payloads[plan.detector])
            load = frames_load(target, plan.worker_count, max(1, min(LARGEST_WINDOW, 3 * rows // plan.worker_count)))
            path = plan.work / f"stacks-{name}.txt"
            sampling = start_sampling(server.pid, SAMPLED_S, path)
            if sampling is None:
                yield {"results": name, "not_run": "py-spy is not installed"}
                continue
            started = time.perf_counter()
            result = load(SAMPLED_S + CLIENT_START_S)
            sampling.wait(SAMPLED_S + 30.0)
            functions = hottest(path, count=200) if path.is_file() else []
            held = sum(int(str(each["samples"])) for each in functions) / (SAMPLES_PER_S * SAMPLED_S)
            yield {
                "results": name,
                "interpreter_held_share": held,
                "wall_s": time.perf_counter() - started,
                "rows_per_s": result["rows_per_s"],
                "functions": functions[:FUNCTIONS_KEPT],
            }
