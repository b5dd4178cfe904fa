"""`make scale-demo`: cameras on three servers behind Envoy, and a table of the streams while servers come and go.

Everything runs on this machine: servers with a simulated model, Envoy with the configuration of deploy/envoy, and 30
cameras of 5 frames a second. Streams have a lifetime of 20 s, so that they also come to servers that start. Ends within
two minutes, with 1 if a frame was lost.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from forebay_server.bench.envoy import Envoy, find_envoy, running_envoy
from forebay_server.bench.fleet import Server, fleet, free_ports, pause
from forebay_server.bench.scale_account import account
from forebay_server.bench.scaling import CAMERAS, FPS, QUICK, SETTLE_S, cameras_on

LIFETIME_S = 20
ROW_S = 3.0


class Show:
    """Prints a row of the table now and then. One thread."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._start_s = time.monotonic()
        print("Open streams of each server; - is a server that does not run.")
        print(f"{'time':>6}  " + "  ".join(f"{server.name:>4}" for server in servers))

    def rows(self, count: int, event: str = "") -> None:
        """Print rows, the first of them with an event."""
        for index in range(count):
            cells = [f"{self._streams(server):>4}" for server in self._servers]
            print(
                f"{time.monotonic() - self._start_s:5.0f}s  {'  '.join(cells)}   {event if index == 0 else ''}".rstrip()
            )
            sys.stdout.flush()
            pause(ROW_S)

    @staticmethod
    def _streams(server: Server) -> str:
        return str(int(server.metric("forebay_streams"))) if server.is_running else "-"


def acts(
    servers: Sequence[Server], envoy: Envoy, faults_ns: list[int]
) -> Sequence[tuple[int, str, Callable[[], None]]]:
    """Return the acts of the show: rows to print after each, its words, and what is done."""
    first, second, *_, fourth = servers

    def stop(server: Server, number: signal.Signals) -> None:
        faults_ns.append(time.monotonic_ns())
        server.signal(number)

    def start(server: Server) -> None:
        server.wait_end()
        server.start()
        server.wait_ready()
        envoy.serve([each.address for each in servers if each.is_running])

    return (
        (2, "30 cameras on three servers, spread by Envoy", lambda: None),
        (2, "SIGTERM to A: it drains, and its streams go to B and C", lambda: stop(first, signal.SIGTERM)),
        (5, f"A is back: streams come as their lifetimes of {LIFETIME_S} s end", lambda: start(first)),
        (5, f"D is added: streams come as their lifetimes of {LIFETIME_S} s end", lambda: start(fourth)),
        (
            2,
            "SIGKILL to B: its streams are opened elsewhere, frames without an answer sent again",
            lambda: stop(second, signal.SIGKILL),
        ),
        (4, "B is back: streams come", lambda: start(second)),
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay_server.bench.scale_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--envoy", help="Envoy's program [.venv-scaling/bin/envoy, or ENVOY]")
    given = parser.parse_args()
    try:
        program = find_envoy(given.envoy)
    except FileNotFoundError as error:
        parser.error(str(error))
    print(
        "Starting three servers, Envoy and 30 cameras; the show takes a minute and a half.",
        flush=True,
    )
    faults_ns: list[int] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-scaling-")))
        servers = stack.enter_context(fleet(4, folder, QUICK, {"stream_lifetime_s": LIFETIME_S}))
        ports = (free_ports(2)[0], free_ports(1)[0])
        envoy = stack.enter_context(running_envoy(program, folder, ports, [each.address for each in servers[:3]]))
        pause(SETTLE_S / 2)
        cameras = stack.enter_context(cameras_on(envoy.address, [FPS] * CAMERAS))
        show = Show(servers)
        for rows, words, act in acts(servers, envoy, faults_ns):
            act()
            show.rows(rows, words)
        found = account("demo", cameras.stop(), faults_ns)
    print(
        f"{found.sent} frames sent, {found.lost} lost, {found.resent} sent a second time; "
        f"streams went to another server {found.moved} times.\n"
        f"The longest pause between results when a server was stopped or killed: {found.gap_ms:.0f} ms more than usual."
    )
    return int(found.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
