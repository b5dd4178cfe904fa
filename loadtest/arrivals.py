"""Send times of all frames: pure functions from a scenario to a plan, the same for the same seed.

The plan of the whole run exists before it starts. This makes the load open loop: a slow server cannot delay a time that
is already planned, so queueing shows up as latency instead of as fewer frames. Times are nanoseconds after the common
start of all processes.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from forebay.near_files import near_file
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.scenario import ArrivalProcess, Phase, Scenario, TraceEntry

Instants = npt.NDArray[np.int64]
_GRID_POINTS = 20_001  # of the cumulative rate of shaped load; 3 ms apart in a run of a minute


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """All frames of one stream.

    `intended_ns`: int64 (frames,), rising; due time of each frame. `capture_ns`: int64 (frames,); time of capture, at
    most `intended_ns`. `scale`: float64 (frames,); size relative to the ordinary frame; `size_bytes`: int64 (frames,),
    0 for the ordinary size.
    """

    stream: int
    connect_ns: int
    intended_ns: Instants
    capture_ns: Instants
    scale: npt.NDArray[np.float64]
    size_bytes: Instants


def plan(scenario: Scenario) -> list[StreamPlan]:
    """Return one plan per stream of the scenario; empty plans for a closed loop, which has no due times."""
    if scenario.arrival is ArrivalProcess.CAMERAS:
        return [_camera(scenario, stream) for stream in range(scenario.streams)]
    if scenario.arrival is ArrivalProcess.TRACE:
        return _replay(scenario)
    if scenario.arrival is ArrivalProcess.CLOSED:
        nothing = np.zeros(0, np.int64)
        return [_stream_plan(scenario, stream, nothing, nothing) for stream in range(scenario.streams)]
    return _shared_out(scenario)


def merged(plans: list[StreamPlan]) -> Iterator[tuple[int, int, int]]:
    """Yield (intended_ns, position in `plans`, frame) over all streams in the order of time."""
    if not plans:
        return
    instants = np.concatenate([stream_plan.intended_ns for stream_plan in plans])
    owners = np.repeat(np.arange(len(plans)), [len(stream_plan.intended_ns) for stream_plan in plans])
    frames = np.concatenate([np.arange(len(stream_plan.intended_ns)) for stream_plan in plans])
    order = np.argsort(instants, kind="stable")
    for start in range(0, len(order), 4096):
        part = order[start : start + 4096]
        yield from zip(instants[part].tolist(), owners[part].tolist(), frames[part].tolist(), strict=True)


def read_trace(path: Path) -> tuple[TraceEntry, ...]:
    """Read a CSV file with the columns time_s and, if wanted, stream and size_bytes; a header line names them."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        entries = [
            TraceEntry(float(row["time_s"]), int(row.get("stream") or 0), int(row.get("size_bytes") or 0))
            for row in rows
        ]
    except OSError as error:
        hint = near_file(path, {".csv"}) if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"cannot read the trace {path}: {error.strerror}{hint}") from error
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        why = "it has no column time_s" if isinstance(error, KeyError) else error
        raise UsageError(f"{path.name} is no trace (CSV with time_s, stream, size_bytes): {why}") from error
    if not entries or min(min(entry.time_s, entry.stream, entry.size_bytes) for entry in entries) < 0:
        raise UsageError(f"{path.name} has no frames, or negative numbers")
    return tuple(entries)


def _camera(scenario: Scenario, stream: int) -> StreamPlan:
    rng = np.random.default_rng((scenario.seed, stream))
    period_ns = 1e9 / scenario.fps
    phase = {
        Phase.RANDOM: rng.random(),
        Phase.EVEN: stream / scenario.streams,
        Phase.ALIGNED: 0.0,
    }[scenario.phase]
    start_ns = _connect_ns(scenario, stream) + phase * period_ns
    frames = max(0, int(np.ceil((scenario.duration_s * 1e9 - start_ns) / period_ns)))
    capture_ns = (start_ns + np.arange(frames) * period_ns).astype(np.int64)
    delay_ns = (rng.random(frames) * scenario.jitter_ms * 1e6).astype(np.int64)
    # A camera never sends a later picture before an earlier one, however late the earlier one is.
    intended_ns = np.maximum.accumulate(capture_ns + delay_ns) if frames else capture_ns
    return _stream_plan(scenario, stream, intended_ns, capture_ns)


def _shared_out(scenario: Scenario) -> list[StreamPlan]:
    rng = np.random.default_rng(scenario.seed)
    instants_ns = (_renewals(scenario, rng) * 1e9).astype(np.int64)
    owners = rng.integers(0, scenario.streams, len(instants_ns))
    plans = []
    for stream in range(scenario.streams):
        mine = instants_ns[(owners == stream) & (instants_ns >= _connect_ns(scenario, stream))]
        plans.append(_stream_plan(scenario, stream, mine, mine))
    return plans


def _renewals(scenario: Scenario, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return arrival times in seconds: a renewal process of rate 1, stretched by the inverse cumulative rate."""
    grid_s = np.linspace(0.0, scenario.duration_s, _GRID_POINTS)
    rates = _rate(scenario, grid_s)
    cumulative = np.concatenate([[0.0], np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(grid_s))])
    shape = scenario.gamma_shape if scenario.arrival is ArrivalProcess.GAMMA else 1.0
    expected = cumulative[-1]
    spread = 1.0 / np.sqrt(shape)
    draws = int(expected + 10 * spread * np.sqrt(expected) + 50)
    arrivals = np.cumsum(rng.gamma(shape, 1.0 / shape, draws))
    return np.asarray(np.interp(arrivals[arrivals < expected], cumulative, grid_s), dtype=np.float64)


def _rate(scenario: Scenario, at_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, peak, duration_s = scenario.rate_per_s, scenario.peak_per_s, scenario.duration_s
    match scenario.arrival:
        case ArrivalProcess.RAMP:
            return low + (peak - low) * at_s / duration_s
        case ArrivalProcess.STEP:
            return np.where(at_s < duration_s / 2, low, peak)
        case ArrivalProcess.SPIKE:
            middle_s = max(0.0, (duration_s - scenario.spike_s) / 2)
            return np.where((at_s >= middle_s) & (at_s < middle_s + scenario.spike_s), peak, low)
        case ArrivalProcess.SINE:
            swing = (1 - np.cos(2 * np.pi * at_s / scenario.period_s)) / 2
            return np.asarray(low + (peak - low) * swing, dtype=np.float64)
        case _:
            return np.full_like(at_s, low)


def _replay(scenario: Scenario) -> list[StreamPlan]:
    plans = []
    for stream in range(scenario.streams):
        mine = sorted((entry for entry in scenario.trace if entry.stream == stream), key=lambda entry: entry.time_s)
        inside = [entry for entry in mine if entry.time_s < scenario.duration_s]
        instants_ns = np.array([entry.time_s * 1e9 for entry in inside], np.float64).astype(np.int64)
        sizes = np.array([entry.size_bytes for entry in inside], np.int64)
        ones = np.ones(len(inside))
        plans.append(StreamPlan(stream, _connect_ns(scenario, stream), instants_ns, instants_ns, ones, sizes))
    return plans


def _stream_plan(scenario: Scenario, stream: int, intended_ns: Instants, capture_ns: Instants) -> StreamPlan:
    scale = np.ones(len(intended_ns))
    if scenario.burst_every:
        scale[:: scenario.burst_every] = scenario.burst_scale
    sizes = np.zeros(len(intended_ns), np.int64)
    return StreamPlan(stream, _connect_ns(scenario, stream), intended_ns, capture_ns, scale, sizes)


def _connect_ns(scenario: Scenario, stream: int) -> int:
    return int(scenario.connect_ramp_s * 1e9 * stream / scenario.streams)
