"""The workloads of `forebay bench batching`: requests of each stream by time, budgets, and executors.

Everything is made from a seed: the same arguments give the same trace. Loads are shares of the executor's capacity,
max over b of b/t(b).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.virtual_lane import StageCosts
from forebay_server.service.request import Delivery

MS = 1_000_000
SECOND_NS = 1_000_000_000
POISSON_STREAMS = 60
CAMERA_FPS = 30.0
BURST_FACTOR = 3.0
BURST_MEAN_NS = 100 * MS
BURST_TIME_SHARE = 0.2
DRIFT_FACTOR = 1.4

Instants = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Executor:
    """A kind of executor: the cost of batches and their largest size."""

    costs: StageCosts
    max_batch_size: int

    @property
    def capacity_per_ns(self) -> float:
        """Rows per nanosecond of the best batch size."""
        costs = self.costs
        return max(b / (costs.alpha_ns + costs.beta_ns * b) for b in range(1, self.max_batch_size + 1))


GPU = Executor(StageCosts(3 * MS, MS // 5, (100_000, 50_000), (50_000, 5_000)), 32)
CPU = Executor(StageCosts(1 * MS, 8 * MS), 8)


@dataclass(frozen=True, slots=True)
class Workload:
    """A trace. Arrays have one element per request, in order of arrival.

    Attributes:
        arrivals_ns: instants from 0, rising; shape (n,), int64.
        budgets_ns: latency budgets; shape (n,), int64.
        streams: index of the stream; shape (n,), int64.
        slowdown: factor on execution by instant, None for none.
    """

    name: str
    load: float
    executor: Executor
    arrivals_ns: Instants
    budgets_ns: Instants
    streams: Instants
    duration_ns: int
    delivery: Delivery = Delivery.EVERY
    slowdown: Callable[[int], float] | None = None


def poisson(load: float, seconds: float, seed: int) -> Workload:
    """Independent arrivals on 60 streams, budget 33 ms."""
    return _poisson("poisson", load, seconds, seed, GPU, 33 * MS)


def cpu(load: float, seconds: float, seed: int) -> Workload:
    """Independent arrivals, budget 100 ms, on an executor to which batching gives next to nothing."""
    return _poisson("cpu", load, seconds, seed, CPU, 100 * MS)


def cameras(load: float, seconds: float, seed: int) -> Workload:
    """Cameras of 30 frames per second with random phases, budget 33 ms."""
    return _cameras("cameras", load, seconds, seed, 33 * MS, Delivery.EVERY)


def cameras_latest(load: float, seconds: float, seed: int) -> Workload:
    """The same with a budget of 200 ms; a newer frame replaces the one that waits."""
    return _cameras("cameras_latest", load, seconds, seed, 200 * MS, Delivery.LATEST)


def mixed(load: float, seconds: float, seed: int) -> Workload:
    """Independent arrivals; budgets of 33 ms on half of the streams, 200 ms on the others."""
    base = _poisson("mixed", load, seconds, seed, GPU, 33 * MS)
    budgets = np.where(base.streams % 2 == 0, 33 * MS, 200 * MS).astype(np.int64)
    return Workload("mixed", load, GPU, base.arrivals_ns, budgets, base.streams, base.duration_ns)


def drift(load: float, seconds: float, seed: int) -> Workload:
    """Independent arrivals; execution is 1.4 times slower in the middle third."""
    base = _poisson("drift", load, seconds, seed, GPU, 33 * MS)
    third = base.duration_ns // 3

    def slowdown(now_ns: int) -> float:
        return DRIFT_FACTOR if third <= now_ns < 2 * third else 1.0

    return Workload(
        "drift", load, GPU, base.arrivals_ns, base.budgets_ns, base.streams, base.duration_ns, slowdown=slowdown
    )


def bursty(load: float, seconds: float, seed: int) -> Workload:
    """Arrivals whose rate jumps between a low state and three times that, in the high state a fifth of the time."""
    generator = np.random.default_rng(seed)
    duration_ns = int(seconds * SECOND_NS)
    rate = load * GPU.capacity_per_ns
    low = rate / (1.0 - BURST_TIME_SHARE + BURST_TIME_SHARE * BURST_FACTOR)
    calm_mean_ns = BURST_MEAN_NS * (1.0 - BURST_TIME_SHARE) / BURST_TIME_SHARE
    pieces, now_ns, is_burst = [], 0.0, False
    while now_ns < duration_ns:
        sojourn_ns = generator.exponential(BURST_MEAN_NS if is_burst else calm_mean_ns)
        count = generator.poisson((low * BURST_FACTOR if is_burst else low) * sojourn_ns)
        pieces.append(now_ns + generator.uniform(0.0, sojourn_ns, count))
        now_ns, is_burst = now_ns + sojourn_ns, not is_burst
    arrivals = np.sort(np.concatenate(pieces)).astype(np.int64)
    arrivals = arrivals[arrivals < duration_ns]
    streams = generator.integers(0, POISSON_STREAMS, len(arrivals))
    return Workload("bursty", load, GPU, arrivals, np.full(len(arrivals), 33 * MS), streams, duration_ns)


def _poisson(name: str, load: float, seconds: float, seed: int, executor: Executor, budget_ns: int) -> Workload:
    generator = np.random.default_rng(seed)
    duration_ns = int(seconds * SECOND_NS)
    rate = load * executor.capacity_per_ns
    gaps = generator.exponential(1.0 / rate, int(rate * duration_ns * 1.2) + 100)
    arrivals = np.cumsum(gaps).astype(np.int64)
    arrivals = arrivals[arrivals < duration_ns]
    streams = generator.integers(0, POISSON_STREAMS, len(arrivals))
    return Workload(name, load, executor, arrivals, np.full(len(arrivals), budget_ns), streams, duration_ns)


def _cameras(name: str, load: float, seconds: float, seed: int, budget_ns: int, delivery: Delivery) -> Workload:
    generator = np.random.default_rng(seed)
    duration_ns = int(seconds * SECOND_NS)
    period_ns = SECOND_NS / CAMERA_FPS
    count = max(1, round(load * GPU.capacity_per_ns * period_ns))
    phases = generator.uniform(0.0, period_ns, count)
    frames = np.arange(int(duration_ns / period_ns))
    instants = (phases[:, None] + frames[None] * period_ns).ravel()
    order = np.argsort(instants, kind="stable")
    streams = np.repeat(np.arange(count), len(frames))[order]
    arrivals = instants[order].astype(np.int64)
    return Workload(name, load, GPU, arrivals, np.full(len(arrivals), budget_ns), streams, duration_ns, delivery)


KINDS: dict[str, tuple[Callable[[float, float, int], Workload], tuple[float, ...]]] = {
    "poisson": (poisson, (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)),
    "cameras": (cameras, (0.3, 0.6, 0.9, 1.0, 1.5)),
    "bursty": (bursty, (0.5, 0.7, 0.9)),
    "mixed": (mixed, (0.7, 0.9, 1.0, 1.5)),
    "cpu": (cpu, (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)),
    "drift": (drift, (0.6, 0.8)),
    "cameras_latest": (cameras_latest, (0.9, 1.5)),
}
"""Every kind with the loads it is run at."""
