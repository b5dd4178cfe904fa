"""Two cores for the server and its client together: an open loop of 1,500 frames a second, and its maximum rate.

The model takes no time, so the benchmark measures the front end and the hand-overs. The bare server, which is grpc.aio
and nothing else, takes its turns too: no server on public grpc.aio does more. On a machine of more cores the servers
and the load are held to the first two that this process may use. Kinds of calls take turns in every round.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

from forebay_server.bench.identity import IDENTITY_BYTES, offer
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, bare_server, running_server, simulated_config

CORES = 2
RATE = 1500
PROTOCOLS = {"forebay": "stream", "oip": "Open Inference stream", "oip-unary": "Open Inference unary"}
BARE_PROTOCOLS = ("forebay", "oip-unary")
BUDGETS_MS = {"forebay": (2.0, 10.0), "oip": (2.0, 10.0), "oip-unary": (4.0, 15.0)}
"""p50 and p99 of the open loop."""
BUDGET_UNARY_RATE = 3400.0
STREAMS, OPEN_WINDOW, CLOSED_WINDOW = 4, 64, 16


@dataclass(slots=True)
class _Case:
    """The measurements of the rounds of one kind of call."""

    p50_ms: list[float]
    p99_ms: list[float]
    cpu_ms: list[float]
    client_cpu_ms: list[float]
    rates: list[float]


def _round(server: RunningServer, protocol: str, case: _Case, seconds: float) -> None:
    opened = offer(
        server,
        server.address,
        IDENTITY_BYTES,
        protocol=protocol,
        streams=STREAMS,
        window=OPEN_WINDOW,
        rate=RATE,
        seconds=seconds,
    )
    case.p50_ms.append(opened["p50_ms"])
    case.p99_ms.append(opened["p99_ms"])
    case.cpu_ms.append(opened["server_cpu_ms"])
    case.client_cpu_ms.append(opened["client_cpu_ms"])
    closed = offer(
        server,
        server.address,
        IDENTITY_BYTES,
        protocol=protocol,
        streams=STREAMS,
        window=CLOSED_WINDOW,
        frames=int(RATE * seconds),
    )
    case.rates.append(closed["frames"] / closed["wall_s"])


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure every kind of call in turn."""
    seconds, rounds = (2.0, 2) if is_quick else (5.0, 4)
    cases = {protocol: _Case([], [], [], [], []) for protocol in PROTOCOLS}
    bare_cases = {protocol: _Case([], [], [], [], []) for protocol in BARE_PROTOCOLS}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])  # children have what this process has
    try:
        config = simulated_config(alpha_ms=0, beta_ms=0)
        with running_server({"identity": config}) as server, bare_server("forebay_server.bench.bare_server") as bare:
            for number in range(rounds + 1):  # the first round warms up
                for protocol, case in cases.items():
                    _round(server, protocol, case if number else _Case([], [], [], [], []), seconds)
                for protocol, case in bare_cases.items():
                    _round(bare, protocol, case if number else _Case([], [], [], [], []), seconds)
    finally:
        os.sched_setaffinity(0, before)
    for protocol, case in cases.items():
        yield from _rows_of(protocol, case)
    for protocol, case in bare_cases.items():
        yield from _bare_rows_of(protocol, case, cases[protocol])


def _bare_rows_of(protocol: str, case: _Case, ours: _Case) -> Iterator[Row]:
    what = f"two cores, the bare server, {PROTOCOLS[protocol]}"
    yield Row(f"{what}: p50 at {RATE} a second", Spread.of(case.p50_ms), "ms")
    yield Row(f"{what}: p99 at {RATE} a second", Spread.of(case.p99_ms), "ms")
    yield Row(f"{what}: CPU per frame at {RATE} a second", Spread.of(case.cpu_ms), "ms")
    yield Row(f"{what}: rate at 64 in flight", Spread.of(case.rates), "/s", is_higher_better=True)
    shares = [rate / most for rate, most in zip(ours.rates, case.rates, strict=True)]
    yield Row(
        f"two cores, {PROTOCOLS[protocol]}: rate over the bare server's", Spread.of(shares), is_higher_better=True
    )


def _rows_of(protocol: str, case: _Case) -> Iterator[Row]:
    what = f"two cores, {RATE} a second of 150 KB, {PROTOCOLS[protocol]}"
    p50_ms, p99_ms = BUDGETS_MS[protocol]
    yield Row(f"{what}: p50", Spread.of(case.p50_ms), "ms", p50_ms)
    lost = "" if math.isfinite(max(case.p99_ms)) else "some frames were not answered"
    yield Row(f"{what}: p99", Spread.of(case.p99_ms), "ms", p99_ms, note=lost)
    yield Row(f"{what}: server CPU per frame", Spread.of(case.cpu_ms), "ms")
    yield Row(f"{what}: client CPU per frame", Spread.of(case.client_cpu_ms), "ms", note="yardstick")
    budget = BUDGET_UNARY_RATE if protocol == "oip-unary" else None
    closed = f"two cores, 64 in flight of 150 KB, {PROTOCOLS[protocol]}: rate"
    yield Row(closed, Spread.of(case.rates), "/s", budget, is_higher_better=True)
