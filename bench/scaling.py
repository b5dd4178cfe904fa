"""Faults of servers behind Envoy and without a proxy, as cameras notice them: `python -m forebay_server.bench.scaling`.

Three servers with a simulated model, 30 cameras of 5 frames a second in another process, which keep their own list of
the frames that they sent. Scenarios:

- term: SIGTERM of the server with the most streams, which then starts anew. Through Envoy without retries.
- kill: the same with SIGKILL.
- envoy: Envoy is killed and started again.
- fourth: three servers have more to do than they can; a fourth one starts.
- mixed: 4 cameras of 12 and 20 of 3 frames a second; the frames that each server gets.
- cut: a proxy that cuts each stream after 10 s.
- amplified: more single requests at a time than the servers take, with Envoy's retries; the calls that clients make and
  those that servers count.
- direct-term, direct-kill: the same faults, three addresses and no proxy.

Beside `term` runs a tritonclient with single requests, if .venv-scaling has one. A gap has the machine's own share in
it: `quiet_gap_ms` is the gap without a fault in the same run.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forebay_server.bench.envoy import ROOT, Envoy, find_envoy, running_envoy
from forebay_server.bench.fleet import MODEL, Server, fleet, free_ports, pause
from forebay_server.bench.flood_calls import flood
from forebay_server.bench.scale_account import Account, account
from forebay_server.loadtest.places import output_file

CAMERAS, FPS = 30, 5.0
SETTLE_S = 4.0  # after a fault and after a start: longer than health checks and back-off
FOURTH_S, MIXED_S = 30.0, 60.0
UNARY_PYTHON = ROOT / ".venv-scaling" / "bin" / "python"
SCENARIOS = ("term", "kill", "envoy", "fourth", "mixed", "cut", "amplified", "direct-term", "direct-kill")
CUT_S, CUT_PLAY_S = 10, 35.0
FLOOD_S, FLOOD_CALLS = 8.0, 64
SHOWN = (
    *("spread", "said", "calls", "refused", "calls_at_servers", "share", "moved_share"),
    *("frames", "frames_max_over_min", "unary_calls", "unary_errors"),
)
"""Keys of a row that only some scenarios have."""
ANNOUNCED = {"drain_announce_s": 1.5}  # longer than the interval of Envoy's health checks
MOVING = {"move_streams": "true"}
QUICK: dict[str, object] = {"alpha_ms": 2, "beta_ms": 0.2, "input_bytes": 1024}
SLOW: dict[str, object] = {
    "alpha_ms": 21,
    "beta_ms": 0,
    "input_bytes": 1024,
    "max_batch_size": 1,
}  # 47 frames/s; each of three is offered 50, each of four 37


class Cameras:
    """A process of cameras."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def stop(self) -> list[dict[str, Any]]:
        """End the cameras and return their reports."""
        output, _ = self._process.communicate("\n", timeout=120)
        reports: list[dict[str, Any]] = json.loads(output)
        return reports


@contextlib.contextmanager
def cameras_on(address: str, fps: Sequence[float]) -> Iterator[Cameras]:
    """Run cameras; the process is killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "forebay_server.bench.scale_cameras", address, MODEL, *map(str, fps)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the cameras did not start; their output is above")
            yield Cameras(process)
        finally:
            process.kill()


@contextlib.contextmanager
def unary_on(address: str) -> Iterator[Callable[[], dict[str, int]]]:
    """Run a tritonclient beside the cameras, if there is one; the yielded function ends it and returns its counts."""
    if not UNARY_PYTHON.exists():
        yield dict
        return
    command = [str(UNARY_PYTHON), str(Path(__file__).with_name("unary_calls.py")), address, MODEL]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603

        def end() -> dict[str, int]:
            counts: dict[str, int] = json.loads(process.communicate("\n", timeout=60)[0])
            return counts

        try:
            yield end
        finally:
            process.kill()


def fullest(servers: Sequence[Server]) -> Server:
    """Return the server with the most streams."""
    return max(servers, key=lambda server: server.metric("forebay_streams"))


def fault(servers: Sequence[Server], number: signal.Signals) -> int:
    """Signal the fullest server, start it anew, and wait until all is calm; return when the signal was sent."""
    pause(SETTLE_S)
    server = fullest(servers)
    at_ns = time.monotonic_ns()
    server.signal(number)
    server.wait_end()
    pause(SETTLE_S / 2)
    server.start()
    server.wait_ready()
    return at_ns


def faults(name: str, count: int, number: signal.Signals, envoy: str | None) -> dict[str, Any]:
    """Signal servers again and again; with `envoy`, the program's path, through a proxy without retries."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(3, folder, QUICK, ANNOUNCED if envoy is not None else None))
        address = ",".join(server.address for server in servers)
        if envoy is not None:
            ports = (free_ports(2)[0], free_ports(1)[0])
            addresses = [server.address for server in servers]
            proxy = running_envoy(envoy, folder, ports, addresses, has_retries=number is not signal.SIGTERM)
            address = stack.enter_context(proxy).address
            pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(address, [FPS] * CAMERAS))
        end_unary: Callable[[], dict[str, int]] = dict
        if envoy is not None and number is signal.SIGTERM:
            end_unary = stack.enter_context(unary_on(address))
        spread = [int(server.metric("forebay_streams")) for server in servers]
        faults_ns = [fault(servers, number) for _ in range(count)]
        pause(SETTLE_S)
        unary = end_unary()
        found = account(name, cameras.stop(), faults_ns)
        return {**found.as_json(), "spread": spread, **unary}


def envoy_restarts(count: int, program: str) -> dict[str, Any]:
    """Kill Envoy and start it again."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(3, folder, QUICK))
        ports = (free_ports(2)[0], free_ports(1)[0])
        envoy: Envoy = stack.enter_context(running_envoy(program, folder, ports, [each.address for each in servers]))
        pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(envoy.address, [FPS] * CAMERAS))
        faults_ns = []
        for _ in range(count):
            pause(SETTLE_S)
            faults_ns.append(time.monotonic_ns())
            envoy.kill()
            envoy.start()
        pause(SETTLE_S)
        return account("envoy", cameras.stop(), faults_ns).as_json()


def fourth(program: str) -> dict[str, Any]:
    """Start a fourth server beside three that have more to do than they can."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(4, folder, SLOW, MOVING))
        ports = (free_ports(2)[0], free_ports(1)[0])
        envoy = stack.enter_context(running_envoy(program, folder, ports, [each.address for each in servers[:3]]))
        pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(envoy.address, [FPS] * CAMERAS))
        pause(2 * SETTLE_S)
        servers[3].start()
        servers[3].wait_ready()
        envoy.serve([each.address for each in servers])
        before = [server.metric("forebay_frames_total") for server in servers]
        pause(FOURTH_S)
        frames = [server.metric("forebay_frames_total") - was for server, was in zip(servers, before, strict=True)]
        found: Account = account("fourth", cameras.stop(), [])
    share = frames[3] / sum(frames) if sum(frames) else 0.0
    return {
        **found.as_json(),
        "frames": frames,
        "share": round(share, 3),
        "moved_share": round(found.moved / CAMERAS, 3),
    }


def mixed(program: str) -> dict[str, Any]:
    """Play heavy and light cameras, and compare the frames that the servers get at the end."""
    last_s = 15.0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(3, folder, SLOW, MOVING))
        ports = (free_ports(2)[0], free_ports(1)[0])
        envoy = stack.enter_context(running_envoy(program, folder, ports, [each.address for each in servers]))
        pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(envoy.address, [12.0] * 4 + [3.0] * 20))
        pause(MIXED_S - last_s)
        before = [server.metric("forebay_frames_total") for server in servers]
        pause(last_s)
        frames = [server.metric("forebay_frames_total") - was for server, was in zip(servers, before, strict=True)]
        found = account("mixed", cameras.stop(), [])
    ratio = round(max(frames) / max(1.0, min(frames)), 2)
    return {**found.as_json(), "frames": frames, "frames_max_over_min": ratio}


def cut(program: str) -> dict[str, Any]:
    """Play cameras through a proxy that cuts each stream again and again."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(3, folder, QUICK))
        ports, addresses = (free_ports(2)[0], free_ports(1)[0]), [each.address for each in servers]
        envoy = stack.enter_context(running_envoy(program, folder, ports, addresses, cut_after_s=CUT_S))
        pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(envoy.address, [FPS] * CAMERAS))
        pause(CUT_PLAY_S)
        reports = cameras.stop()
    said = [line for line in reports[0]["said"] if "trying again" in line]
    return {**account("cut", reports, []).as_json(), "said": said[:1]}


def amplified(program: str) -> dict[str, Any]:
    """Offer more than the servers take, and compare the calls that they count with those that clients made."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(3, folder, SLOW, {"permits": 4}))
        ports, addresses = (free_ports(2)[0], free_ports(1)[0]), [each.address for each in servers]
        envoy = stack.enter_context(running_envoy(program, folder, ports, addresses))
        pause(SETTLE_S / 2)
        codes = asyncio.run(flood(envoy.address, MODEL, FLOOD_CALLS, FLOOD_S))
        pause(1.0)
        names = ("nv_inference_request_success", "nv_inference_request_failure")
        counted = sum(server.metric(name) for server in servers for name in names)
    calls = sum(codes.values())
    empty = account("amplified", [], []).as_json()
    return {**empty, "calls": calls, "refused": calls - codes["OK"], "calls_at_servers": int(counted)}


def run(name: str, repeats: int, program: str | None) -> dict[str, Any]:
    """Run one scenario and return its row."""
    if name.startswith("direct-"):
        return faults(name, repeats, signal.SIGTERM if name.endswith("term") else signal.SIGKILL, None)
    envoy = find_envoy(program)
    if name in {"term", "kill"}:
        return faults(name, repeats, signal.SIGTERM if name == "term" else signal.SIGKILL, envoy)
    if name == "envoy":
        return envoy_restarts(repeats, envoy)
    return {"fourth": fourth, "mixed": mixed, "cut": cut, "amplified": amplified}[name](envoy)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [
        "| scenario | faults | frames | lost | sent again | reopened | gap ms, longest (median) | no fault | more |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        keys = (
            "spread",
            "said",
            "calls",
            "refused",
            "calls_at_servers",
            "share",
            "moved_share",
            "frames",
            "frames_max_over_min",
            "unary_calls",
            "unary_errors",
        )
        more = ", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in keys if key in row)
        lines.append(
            f"| {row['name']} | {row['faults']} | {row['sent']} | {row['lost']} | {row['resent']} | {row['moved']} | "
            f"{row['gap_ms']:.0f} ({row['median_gap_ms']:.0f}) | {row['quiet_gap_ms']:.0f} | {more} |"
        )
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay_server.bench.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} [all]")
    parser.add_argument("--repeats", type=int, default=10, help="faults of each kind [10]")
    parser.add_argument("--envoy", help="Envoy's program [.venv-scaling/bin/envoy, or ENVOY]")
    parser.add_argument("--json", type=output_file, help="also write the rows to this file")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    rows = [run(name, given.repeats, given.envoy) for name in given.scenarios or SCENARIOS]
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
