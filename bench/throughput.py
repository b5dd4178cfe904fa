"""The server against the engine alone: frames per second over raw ONNX Runtime's, and p99 at half of that rate.

The model is shufflenet from the onnx package's light models, made batchable: the first dimension varies, each Reshape
keeps the first dimension (1 -> 0), and its constant weights become seeded He-normal ones. Raw is the best rate over
batch sizes of one session with one thread on prepared input: no server, no client, no copy. Raw and served runs take
turns, and each quotient is of neighbours.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from forebay_server.bench.identity import offer
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, running_server

FRAME_SHAPE = (3, 224, 224)
FRAME_BYTES = 4 * 3 * 224 * 224
BATCH_SIZES = (1, 2, 4, 8)
MAX_BATCH_SIZE = 8
BUDGET_SHARE = 0.90
BAR_CPU_SHARE = 0.55  # wall time is no bar: raw needs one core, the server and its client two
BUDGET_P99_MS = 35.0
MOST_ATTEMPTS = 3
LOAD_GUARD_S = 1200.0  # a search runs for minutes
ONE_DIMENSION = {"_s_0": 1.0, "_riv_0": 1.0}  # scale and variance; bias and mean are 0


def write_shufflenet(path: Path) -> None:
    """Write the batchable model with seeded weights."""
    source = Path(onnx.__file__).parent / "backend/test/data/light/light_shufflenet.onnx"
    graph = onnx.load(source).graph
    generator = np.random.default_rng(1)
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            constants[node.output[0]] = _weights(node.output[0], constants.pop(node.input[0]), generator)
        else:
            nodes.append(node)
    for node in nodes:
        if node.op_type == "Reshape":
            shape = constants[node.input[1]].copy()
            shape[0] = 0  # as many as come in
            constants[node.input[1]] = shape
    batch: list[str | int | None] = ["N", *FRAME_SHAPE]
    batchable = helper.make_graph(
        nodes,
        "shufflenet",
        [helper.make_tensor_value_info(graph.input[0].name, onnx.TensorProto.FLOAT, batch)],
        [helper.make_tensor_value_info(graph.output[0].name, onnx.TensorProto.FLOAT, ["N", 1000])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(batchable, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _weights(name: str, shape: "np.ndarray[Any, Any]", generator: np.random.Generator) -> "np.ndarray[Any, Any]":
    dims = [int(side) for side in shape]
    if len(dims) > 1:
        deviation = np.sqrt(2.0 / np.prod(dims[1:]))
        weights: np.ndarray[Any, Any] = (generator.standard_normal(dims) * deviation).astype(np.float32)
        return weights
    value = next((value for ending, value in ONE_DIMENSION.items() if name.endswith(ending)), 0.0)
    return np.full(dims, value, np.float32)


class RawRate(NamedTuple):
    """Frames per second, at which batch size, and CPU milliseconds per frame. Compares by rate."""

    per_s: float
    batch_size: int
    cpu_ms: float


class RawSession:
    """ONNX Runtime with one thread, as the server opens it, on prepared input."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def rate(self, batch_size: int, seconds: float) -> "RawRate":
        """Measure one batch size."""
        frames = np.random.default_rng(1).standard_normal((batch_size, *FRAME_SHAPE), np.float32)
        self._session.run(None, {self._name: frames})
        started_s, started_cpu_s, batches = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started_s < seconds:
            self._session.run(None, {self._name: frames})
            batches += 1
        frame_count = batches * batch_size
        cpu_ms = (time.process_time() - started_cpu_s) * 1e3 / frame_count
        return RawRate(frame_count / (time.perf_counter() - started_s), batch_size, cpu_ms)


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure both."""
    seconds, repeats = (2.0, 3) if is_quick else (4.0, 5)
    with TemporaryDirectory(prefix="forebay-bench-") as folder:
        path = Path(folder) / "shufflenet" / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        write_shufflenet(path)
        (path.parent.parent / "config.pbtxt").write_text(f"max_batch_size: {MAX_BATCH_SIZE}\n")
        session = RawSession(path)
        raw: list[RawRate] = []
        served: list[dict[str, Any]] = []
        with running_server(model_repository=Path(folder)) as server:
            for repeat in range(repeats + 1):
                best = max(session.rate(size, seconds / 4) for size in BATCH_SIZES)
                run = _serve(server, int(best.per_s * seconds))
                if repeat:  # the first warms up
                    raw.append(best)
                    served.append(run)
            yield from _comparison(raw, served)
            if not is_quick:
                yield _half_load(server, Spread.of([best.per_s for best in raw]).median / 2)


def _serve(server: RunningServer, frames: int) -> dict[str, Any]:
    return offer(server, server.address, FRAME_BYTES, model="shufflenet", streams=2, window=4, frames=max(16, frames))


def _comparison(raw: list[RawRate], served: list[dict[str, Any]]) -> Iterator[Row]:
    case = "shufflenet, 602 KB"
    sizes = ", ".join(str(best.batch_size) for best in raw)
    yield Row(f"{case}: raw ONNX Runtime, one thread", Spread.of([r.per_s for r in raw]), "/s", note=f"batch {sizes}")
    share = [run["frames"] / run["wall_s"] / best.per_s for run, best in zip(served, raw, strict=True)]
    note = "raw needs one core, the server and its client two"
    what = f"{case}: served, 8 in flight, over raw"
    yield Row(what, Spread.of(share), "", BUDGET_SHARE, is_higher_better=True, note=note)
    engine = [best.cpu_ms / run["server_cpu_ms"] for run, best in zip(served, raw, strict=True)]
    what = f"{case}: CPU per frame of raw ONNX Runtime over the server's"
    yield Row(what, Spread.of(engine), "", None, BAR_CPU_SHARE, is_higher_better=True)


def _half_load(server: RunningServer, rate: float) -> Row:
    """Offer half of the raw rate, Poisson, with the load tester: open loop, latency from the intended send.

    A run that the load tester calls INVALID says nothing about the server, so that it is repeated.
    """
    options = ["--model", "shufflenet", "--rate", f"{rate:.1f}", "--streams", "4", "--delivery", "every"]
    options += ["--shape", "x".join(map(str, FRAME_SHAPE)), "--duration", "30s"]
    runs: list[dict[str, Any]] = []
    while not runs or (runs[-1]["verdict"] == "INVALID" and len(runs) < MOST_ATTEMPTS):
        runs.append(load(server.address, *options))
    report = runs[-1]
    note = f"{rate:.0f}/s; {report['verdict']}; least and most are p99's 95 % interval"
    if report["verdict"] == "INVALID":
        note = f"{rate:.0f}/s; INVALID {len(runs)} times: {report['reasons'][0]}"
        values = [math.nan] * 3
    else:
        interval = report["p99_ci_ms"] or [report["p99_ms"]] * 2
        values = [math.nan if value is None else value for value in (report["p99_ms"], *interval)]
    return Row(
        "shufflenet, Poisson at half of the raw rate: p99", Spread(*values), "ms", budget=BUDGET_P99_MS, note=note
    )


def load(address: str, *options: str, command: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run `forebay load` in a process of its own and return its JSON report, for any verdict.

    Raises:
        RuntimeError: there is no report; the text is the command's output.
    """
    with TemporaryDirectory(prefix="forebay-bench-") as folder:
        path = Path(folder) / "report.json"
        line = [sys.executable, "-m", "forebay_server.loadtest", *command, "--address", address, "--json", str(path)]
        done = subprocess.run(  # noqa: S603
            [*line, "--no-live", *options], check=False, capture_output=True, text=True, timeout=LOAD_GUARD_S
        )
        if not path.exists():
            raise RuntimeError(f"forebay load ended with {done.returncode} and no report: {done.stderr.strip()}")
        report: dict[str, Any] = json.loads(path.read_text())
        return report
