"""Measures the costs of a plan on this machine: a server with one model, and cameras of the wanted kind before it.

The server is `forebay serve` in a process of its own. It calibrates the model as always, into a folder of its own,
whose table becomes the plan's. Then cameras send at a low rate, and after that at rising shares of the rate that
follows from it, the last nine tenths of it: a plan is asked for the number of cameras at which a machine is full. A
hardly used server takes more for a frame, because each wakes every thread; full cores share caches, memory and
arithmetic units. CPU times are measured and not durations, so that other programs on the machine change little. The
scatter of executions is that of the first, low rate, whose frames come one by one: later ones make batches of several
sizes, and wait for the cores.

The last rate is measured in parts of two seconds. The costs are the mean of the parts. The cost of a frame in
each part, against the mean, shows the cores' speed meanwhile, which is not constant where a host has other guests.

Last, real runs at the number of cameras that these costs promise correct them: see `trying`.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import fmean

import grpc

from forebay.wire import inference_pb2
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from forebay_server.bench.plan.costs import LEAST_SPEED, CostsError, FrameCosts, PlanCosts
from forebay_server.bench.plan.fit import Machine, ceiling_per_s
from forebay_server.bench.plan.offering import Offered, offer
from forebay_server.bench.plan.thread_times import ThreadTimes, thread_times
from forebay_server.bench.plan.trying import Asked, corrected, trier
from forebay_server.bench.plan.virtual_server import SLICE_NS
from forebay_server.bench.server_process import RunningServer, running_server
from forebay_server.engines.device import DeviceKind
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.report import Document
from forebay_server.loadtest.scenario import Phase
from forebay_server.loadtest.target import Delivery
from forebay_server.service.batching.cost_table import CostTable
from forebay_server.service.cores import usable_cores
from forebay_server.service.models.batching import executed_sizes

PILOT_S, IDLE_S = 3.0, 1.0
PART_S = SLICE_NS / 1e9
PILOT_SHARE, MIDDLE_SHARE, MEASURED_SHARE = 0.2, 0.6, 0.9
"""Of the ceiling, at which frames are offered; the costs are those of the last one."""
MOST_CAMERAS, MOST_RATE, MOST_PILOT_RATE = 8, 1500.0, 100.0
BUDGET = "10s"  # long enough that no frame is dropped while costs are measured
LEAST_SCATTER, USUAL_SCATTER, MOST_SCATTER = 0.02, 0.05, 0.5
INTERRUPTED = 1.3
"""Durations over CPU time, from which on their scatter is that of other programs, and the usual one is taken."""
SIGMAS_OF_P99 = 2.326
FACTOR_RANGE = (0.05, 4.0)  # a calibration beside many other programs takes many times as long
LEAST_BATCHES = 10
RUNS_TIME = 3.0
"""Times the measurement of the costs, that the real runs take together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The model and the frames to measure.

    Attributes:
        model: its name.
        repository: where it is; None: the bundled one.
        load: the frames, as for `forebay load`.
        front_ends: front-end processes of the server.
        seconds: of the measurement of the costs; the real runs take three times as long.
        asked: traffic and target of the real runs; None: there are none.
    """

    model: str
    repository: Path | None
    load: LoadOptions
    front_ends: int = 0
    seconds: float = 8.0
    asked: Asked | None = None


def measure_costs(wanted: Wanted, say: Callable[[str], None] = lambda _: None) -> PlanCosts:
    """Start a server, measure, do the real runs, and return the costs. Blocks: for most of a minute.

    Raises:
        CostsError: nothing could be measured.
        RuntimeError: the server did not start; the message has its log.
        LoadTestError: it did not answer.
    """
    flags = ("--model-control-mode", "explicit", "--load-model", wanted.model, "--log-level", "warning")
    with tempfile.TemporaryDirectory(prefix="forebay-plan-") as folder:
        say(f"loading and calibrating {wanted.model}")
        with running_server(
            None,
            *flags,
            model_repository=wanted.repository,
            front_ends=wanted.front_ends,
            environment={"FOREBAY_CACHE_FOLDER": folder},
        ) as server:
            table = _table(Path(folder), wanted.model)
            instances = _instances(server, wanted.model)
            costs = _Measurement(wanted, server, table, instances, say).costs()
            if wanted.asked is None:
                return costs
            try_cameras = trier(server, replace(wanted.load, model=wanted.model), wanted.asked, say)
            return corrected(costs, wanted.asked, try_cameras, max(1, wanted.front_ends), RUNS_TIME * wanted.seconds)


class _Measurement:
    def __init__(
        self, wanted: Wanted, server: RunningServer, table: CostTable, instances: int, say: Callable[[str], None]
    ) -> None:
        self._wanted, self._server, self._table, self._say = wanted, server, table, say
        self._instances = instances
        self._pids = (server.process.pid, *server.others)

    def costs(self) -> PlanCosts:
        idle = self._idle()
        execute_ns = self._table.execute_ns[0]
        self._say(f"offering frames for {PILOT_S:g} s")
        pilot = self._at(min(MOST_PILOT_RATE, PILOT_SHARE * 1e9 / execute_ns), PILOT_S, idle)
        middle = self._at(self._rate(MIDDLE_SHARE, pilot, PILOT_S), PILOT_S, idle)
        rate = self._rate(MEASURED_SHARE, middle, self._wanted.seconds)
        parts = [self._at(rate, PART_S, idle) for _ in range(max(1, round(self._wanted.seconds / PART_S)))]
        return replace(mean_of(parts), scatter=pilot.scatter)

    def _rate(self, share: float, known: PlanCosts, seconds: float) -> float:
        """Return the rate at a share of the ceiling, as far as it is known, and say that it comes next."""
        here = Machine(known.cores, max(1, self._wanted.front_ends), has_cameras=True)
        rate = min(MOST_RATE, share * ceiling_per_s(known, here))
        self._say(f"offering {rate:.0f} frames a second for {seconds:g} s")
        return rate

    def _idle(self) -> ThreadTimes:
        before = thread_times(self._pids)
        time.sleep(IDLE_S)  # noqa: TID251 - the server has nothing to do meanwhile
        return thread_times(self._pids).since(before)

    def _at(self, rate: float, seconds: float, idle: ThreadTimes) -> PlanCosts:
        cameras = max(1, min(MOST_CAMERAS, round(rate)))
        options = replace(
            self._wanted.load,
            address=self._server.address,
            model=self._wanted.model,
            cameras=cameras,
            fps=max(rate, 1.0) / cameras,
            duration=f"{seconds:g}s",
            delivery=Delivery.EVERY,
            phase=Phase.EVEN,
            budget=BUDGET,
            live=False,
        )
        offered = offer(self._server, options)
        document = offered.document
        if not document["answered"]:
            raise CostsError(f"no frame was answered: {'; '.join(document['reasons'])}")
        used = offered.used.less(idle, offered.passed_s / IDLE_S)
        costs = costs_of(replace(offered, used=used), self._table, self._instances)
        return replace(costs, others_cores=offered.others_cores)


def costs_of(offered: Offered, table: CostTable, instances: int) -> PlanCosts:
    """Return the costs that a report of `forebay load` and the CPU times of its server's threads show."""
    document, used = offered.document, offered.used
    frames, target = document["answered"], document["target"]
    stages = {name: part["mean_ms"] for name, part in document["stages_ms"].items()}
    decoding = stages.get("decode", 0.0) / max(1e-9, stages.get("decode", 0.0) + stages.get("deliver", 0.0))
    workers_ns = used.workers_ns / frames
    cores = usable_cores()
    strands = _strands(table, cores)
    execute = document["stages_ms"].get("execute", {"mean_ms": 1.0, "p99_ms": 1.0})
    return PlanCosts(
        model=target["model"],
        encoding=str(target["encoding"]),
        width=target["width"],
        height=target["height"],
        frame_bytes=round(document["sent_bytes"] / max(1, document["sent"])),
        table=_corrected(table, used.engine_ns, document) if strands == 1 else table,
        executed_sizes=executed_sizes(DeviceKind.CUDA if strands == 0 else DeviceKind.CPU, table.sizes[-1]),
        instances=instances,
        strands=strands,
        scatter=_scatter(execute["mean_ms"], execute["p99_ms"], _execution_ns(used, document) / 1e6),
        frame=FrameCosts(
            transport_ns=round(used.transport_ns / frames),
            loop_ns=round(used.loop_ns / frames),
            decode_ns=round(workers_ns * decoding),
            result_ns=round(workers_ns * (1.0 - decoding)),
            stage_ns=round(used.stages_ns / frames),
            camera_ns=round(offered.camera_s * 1e9 / frames),
        ),
        cores=cores,
    )


def mean_of(parts: Sequence[PlanCosts]) -> PlanCosts:
    """Return the mean of costs that were measured one after the other at one rate, and the cores' speed in each."""
    mean = FrameCosts(*(round(fmean(values)) for values in zip(*(astuple(part.frame) for part in parts), strict=True)))
    execute_ns = zip(*(part.table.execute_ns for part in parts), strict=True)
    costs = replace(
        parts[0],
        frame=mean,
        table=replace(parts[0].table, execute_ns=tuple(round(fmean(values)) for values in execute_ns)),
        others_cores=fmean(part.others_cores for part in parts),
    )
    speeds = (cpu_ns(costs) / cpu_ns(part) for part in parts)
    return replace(costs, speeds=tuple(min(1.0 / LEAST_SPEED, max(LEAST_SPEED, speed)) for speed in speeds))


def cpu_ns(costs: PlanCosts) -> float:
    """Return the CPU time of a frame, executed alone."""
    outside: int = sum(astuple(costs.frame))
    return outside + costs.table.execute_ns[0] * costs.strands


def _corrected(table: CostTable, engine_ns: int, document: Document) -> CostTable:
    """Return the table with the speed of service: by CPU time, which other programs hardly change.

    The calibration runs alone; in service decoding shares the caches. It is the factor that the former learns as well.
    """
    mean = max(1.0, document["batch_size_mean"] or 1.0)
    batches = document["answered"] / mean
    if engine_ns <= 0 or batches < LEAST_BATCHES:
        return table
    sizes = table.sizes
    position = next((i for i, size in enumerate(sizes) if size >= mean), len(sizes) - 1)
    low = max(0, position - (sizes[position] > mean))
    span = sizes[position] - sizes[low]
    part = (mean - sizes[low]) / span if span else 0.0
    expected = table.execute_ns[low] + part * (table.execute_ns[position] - table.execute_ns[low])
    factor = min(FACTOR_RANGE[1], max(FACTOR_RANGE[0], engine_ns / batches / expected))
    return replace(table, execute_ns=tuple(max(1, round(ns * factor)) for ns in table.execute_ns))


def _execution_ns(used: ThreadTimes, document: Document) -> float:
    """Return the CPU time of an execution; 0 where its threads are not known."""
    return float(used.engine_ns * max(1.0, document["batch_size_mean"] or 1.0) / max(1, document["answered"]))


def _scatter(mean_ms: float, p99_ms: float, cpu_ms: float) -> float:
    """Return the relative deviation of a lognormal duration with this mean and p99."""
    if cpu_ms and mean_ms > INTERRUPTED * cpu_ms:
        return USUAL_SCATTER
    ratio = p99_ms / mean_ms if mean_ms > 0 else 1.0
    return min(MOST_SCATTER, max(LEAST_SCATTER, math.log(max(1.0, ratio)) / SIGMAS_OF_P99))


def _strands(table: CostTable, cores: int) -> int:
    """Return how many cores an execution uses: by the engine's own threads; 0 on a GPU."""
    if table.identity.device != "cpu":
        return 0
    words = dict(word.partition("=")[::2] for word in table.identity.engine.split() if "=" in word)
    threads = int(words.get("intra_op_threads", "1"))
    return min(cores, threads) if threads else cores


def _table(folder: Path, model: str) -> CostTable:
    files = sorted((folder / "costs").glob(f"{model}-*.json")) if (folder / "costs").is_dir() else []
    if not files:
        raise CostsError(
            f"the server has no costs of {model}: its shapes vary, so that no batch has a fixed cost; measure such a "
            "model with `forebay load search` on the machine itself"
        )
    return CostTable.from_json(files[0].read_text(encoding="utf-8"))


def _instances(server: RunningServer, model: str) -> int:
    with grpc.insecure_channel(server.address) as channel:
        request = inference_pb2.ModelConfigRequest(name=model)
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        config = stub.ModelConfig(request, timeout=60.0).config
    return max(1, *(int(group.count) * max(1, len(group.gpus)) for group in config.instance_group))
