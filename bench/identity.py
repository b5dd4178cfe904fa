"""The cost of a frame when the model costs nothing: server CPU per frame, and the round trip of one frame alone.

The simulated engine takes no time but reads the whole input: its answer is a checksum. Everything else is real:
gRPC, the session, the former, the stages. CPU time on a shared machine varies by two or three times within a minute, so
every run is followed by the same run against the bare server (`bench.bare_server`): the quotient of neighbouring runs
holds on any machine, and the client's own CPU per frame says how busy the machine was. One more server without a
pipeline takes turns with these two in the budget's case: it shows what it costs to hand each frame to a second thread.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, bare_server, running_server, simulated_config

IDENTITY_BYTES = 150_528  # 224 x 224 x 3
SIZES = (20_480, IDENTITY_BYTES, 602_112)
STREAMS, WINDOW = 4, 8
NAMES = {"forebay": "identity", "oip": "Open Inference stream", "oip-unary": "Open Inference unary"}
OFFER_GUARD_S = 300.0  # one run takes seconds; a server that hangs must not stop the others for ever
BUDGET_CPU_MS, BUDGET_INFERENCE_CPU_MS, BUDGET_LONE_MS = 0.19, 0.25, 0.7
BAR_OVER_BARE, BAR_OVER_CLIENT = 3.2, 2.6  # of the server's CPU; medians on a busy machine were 2.1 to 2.9, 1.5 to 2.4
BARE = ("forebay_server.bench.bare_server",)
FLOORS = {
    "grpc.aio, a second thread answers": ("forebay_server.bench.bare_server", "--hand-over"),
}
"""Servers without a pipeline beside the bare one: description -> module and arguments."""


@dataclass(frozen=True, slots=True)
class FloorResult:
    """A server without a pipeline: CPU milliseconds per frame, that over the bare server's, one frame's round trip."""

    cpu_ms: Spread
    over_bare: Spread
    lone_p50_ms: Spread


@dataclass(frozen=True, slots=True)
class IdentityResult:
    """CPU milliseconds per frame at 32 in flight, round trips of one frame alone, and the bare server beside it."""

    payload_bytes: int
    transport: str
    protocol: str
    server_cpu_ms: Spread
    client_cpu_ms: Spread
    bare_cpu_ms: Spread
    over_bare: Spread
    over_client: Spread
    frames_per_s: Spread
    lone_p50_ms: Spread
    lone_over_bare: Spread
    floors: dict[str, FloorResult]


def offer(server: RunningServer, address: str, payload_bytes: int, **options: float | str) -> dict[str, Any]:
    """Run the load in a process of its own; return its result with the CPU per frame of both sides added.

    Args:
        server: under load.
        address: of the server.
        payload_bytes: of a frame.
        options: of the client; also `model`.
    """
    model = str(options.pop("model", "identity"))
    command = [sys.executable, "-m", "forebay_server.bench.frame_load", address, model]
    command += ["--payload-bytes", str(payload_bytes)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    before_s = server.cpu_s()
    output = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=OFFER_GUARD_S
    ).stdout
    result: dict[str, Any] = json.loads(output)
    if result.get("not_ok"):
        raise RuntimeError(f"{result['not_ok']} of {result['frames']} frames were not OK: the measurement is void")
    result["server_cpu_ms"] = (server.cpu_s() - before_s) * 1e3 / result["frames"]
    result["client_cpu_ms"] = result["client_cpu_s"] * 1e3 / result["frames"]
    return result


def measure_identity(
    payload_bytes: int = IDENTITY_BYTES,
    transport: str = "tcp",
    protocol: str = "forebay",
    frames: int = 4000,
    repeats: int = 5,
    *,
    has_floors: bool = False,
) -> IdentityResult:
    """Measure one payload size over one transport, in turn with the bare server, and with the other floors if asked."""
    config = simulated_config(alpha_ms=0, beta_ms=0, input_bytes=payload_bytes)
    others = {"bare": BARE} | (FLOORS if has_floors else {})
    with contextlib.ExitStack() as stack:
        servers = {"forebay": stack.enter_context(running_server({"identity": config}))}
        servers |= {name: stack.enter_context(bare_server(*command)) for name, command in others.items()}
        loaded: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        alone: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        for repeat in range(repeats + 1):
            for name, server in servers.items():
                address = server.address if transport == "tcp" else server.uds
                spoken = protocol if name == "forebay" else "forebay"  # the others speak one protocol
                count = frames if repeat else frames // 4
                many = offer(
                    server, address, payload_bytes, streams=STREAMS, window=WINDOW, frames=count, protocol=spoken
                )
                one = offer(server, address, payload_bytes, streams=1, window=1, frames=count // 8, protocol=spoken)
                if repeat:  # the first round warms up
                    loaded[name].append(many)
                    alone[name].append(one)
    ours, theirs = loaded["forebay"], loaded["bare"]
    return IdentityResult(
        payload_bytes=payload_bytes,
        transport=transport,
        protocol=protocol,
        server_cpu_ms=_spread(ours, "server_cpu_ms"),
        client_cpu_ms=_spread(ours, "client_cpu_ms"),
        bare_cpu_ms=_spread(theirs, "server_cpu_ms"),
        over_bare=_quotients(ours, theirs, "server_cpu_ms"),
        over_client=Spread.of([run["server_cpu_ms"] / run["client_cpu_ms"] for run in ours]),
        frames_per_s=Spread.of([run["frames"] / run["wall_s"] for run in ours]),
        lone_p50_ms=_spread(alone["forebay"], "p50_ms"),
        lone_over_bare=_quotients(alone["forebay"], alone["bare"], "p50_ms"),
        floors={
            name: FloorResult(
                _spread(loaded[name], "server_cpu_ms"),
                _quotients(loaded[name], theirs, "server_cpu_ms"),
                _spread(alone[name], "p50_ms"),
            )
            for name in servers
            if name != "forebay"
        },
    )


def _spread(runs: list[dict[str, Any]], key: str) -> Spread:
    return Spread.of([run[key] for run in runs])


def _quotients(runs: list[dict[str, Any]], others: list[dict[str, Any]], key: str) -> Spread:
    return Spread.of([run[key] / other[key] for run, other in zip(runs, others, strict=True)])


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure the budget's case in full, and every other size, protocol and transport shorter."""
    frames, repeats = (2000, 3) if is_quick else (4000, 5)
    yield from _main_rows(measure_identity(frames=frames, repeats=repeats, has_floors=not is_quick))
    if is_quick:
        return
    for protocol in ("forebay", "oip"):
        for transport in ("tcp", "unix"):
            for payload_bytes in SIZES:
                if (protocol, transport, payload_bytes) != ("forebay", "tcp", IDENTITY_BYTES):
                    yield from _cell(measure_identity(payload_bytes, transport, protocol, frames=1600, repeats=3))
    yield from _cell(measure_identity(protocol="oip-unary", frames=1600, repeats=3))


def _main_rows(result: IdentityResult) -> Iterator[Row]:
    case = "identity, 150 KB, tcp"
    yield Row(f"{case}: server CPU per frame, 32 in flight", result.server_cpu_ms, "ms", BUDGET_CPU_MS)
    yield Row(f"{case}: the same over the bare server's", result.over_bare, bar=BAR_OVER_BARE)
    yield Row(f"{case}: the same over the client's", result.over_client, bar=BAR_OVER_CLIENT)
    yield Row(f"{case}: client CPU per frame", result.client_cpu_ms, "ms", note="yardstick: 0.16 on a quiet machine")
    yield Row(f"{case}: bare server's CPU per frame", result.bare_cpu_ms, "ms", note="the cost of grpc.aio here")
    yield Row(f"{case}: frames per second, client on the same cores", result.frames_per_s, "/s", is_higher_better=True)
    yield Row(f"{case}: one frame in flight, p50", result.lone_p50_ms, "ms", BUDGET_LONE_MS)
    yield Row(f"{case}: the same over the bare server's", result.lone_over_bare)
    for name, floor in result.floors.items():
        if name != "bare":
            yield from _floor_rows(name, floor)


def _floor_rows(name: str, floor: FloorResult) -> Iterator[Row]:
    case = f"no pipeline, 150 KB, tcp, {name}"
    yield Row(
        f"{case}: server CPU per frame, 32 in flight",
        floor.cpu_ms,
        "ms",
        note=f"{floor.over_bare} of the bare server's",
    )
    yield Row(f"{case}: one frame in flight, p50", floor.lone_p50_ms, "ms")


def _cell(result: IdentityResult) -> Iterator[Row]:
    name = NAMES[result.protocol]
    case = f"{name}, {result.payload_bytes // 1000} KB, {result.transport}"
    is_budgeted = (result.protocol, result.transport, result.payload_bytes) == ("oip", "tcp", IDENTITY_BYTES)
    budget = BUDGET_INFERENCE_CPU_MS if is_budgeted else None
    note = f"client {result.client_cpu_ms.median:.2f} ms, bare server {result.bare_cpu_ms.median:.2f} ms"
    yield Row(f"{case}: server CPU per frame", result.server_cpu_ms, "ms", budget, note=note)
    yield Row(f"{case}: one frame in flight, p50", result.lone_p50_ms, "ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.identity", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="more runs and cases, as `python -m forebay_server.bench identity`"
    )
    given = parser.parse_args()
    for row in rows(is_quick=not given.full):
        print(f"{row.what}: {row.value} {row.unit} {row.verdict}")


if __name__ == "__main__":
    main()
