"""Several `forebay serve` processes on fixed ports, which come and go: for `scaling` and `scale_demo`."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from forebay_server.bench.server_process import simulated_config

MODEL = "sim"
START_TIMEOUT_S = 60.0
_METRIC = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", flags=re.MULTILINE)


def free_ports(count: int) -> list[int]:
    """Return ports that no process listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def reachable(address: str, seconds: float) -> bool:
    """Wait until a connection is accepted, at most for `seconds`."""
    host, _, port = address.rpartition(":")
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        pause(0.05)
    return False


def pause(seconds: float) -> None:
    """Block this thread: these programs wait for other processes."""
    time.sleep(seconds)  # noqa: TID251


class Server:
    """One server on a fixed port, with its admin port.

    Attributes:
        name: one letter, for tables.
        address: host:port.
    """

    def __init__(self, name: str, folder: Path, settings: Mapping[str, object]) -> None:
        self.name = name
        port, self._admin_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it."""
        command = [sys.executable, "-m", "forebay_server.service", "serve", "--address", self.address]
        command += ["--admin-address", f"127.0.0.1:{self._admin_port}", "--front-ends", "0"]
        command += ["--model-repository", str(self._folder / "models")]
        given = {"cache_folder": self._folder / "cache", **self._settings}
        environment = {**os.environ, **{f"FOREBAY_{name.upper()}": str(value) for name, value in given.items()}}
        with (self._folder / f"server-{self.name}.log").open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    def wait_ready(self) -> None:
        """Wait for the ready line.

        Raises:
            RuntimeError: the server did not start; the message has its log.
        """
        assert self._process is not None  # noqa: S101 - started
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        if not self._process.stdout.readline():
            log = (self._folder / f"server-{self.name}.log").read_text()
            raise RuntimeError(f"server {self.name} did not start:\n{log[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def wait_end(self) -> int | None:
        """Wait for the end of the process; return its exit code."""
        if self._process is None:
            return None
        code = self._process.wait(START_TIMEOUT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return code

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of a metric over its labels, or over those that contain `label`; 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(
            float(found["value"])
            for found in _METRIC.finditer(text)
            if found["name"] == name and label in (found["labels"] or "")
        )


@contextlib.contextmanager
def fleet(
    count: int, folder: Path, model: Mapping[str, object], settings: Mapping[str, object] | None = None
) -> Iterator[list[Server]]:
    """Make servers, the first three of them running; all are ended at the end of the block.

    Args:
        count: servers, running or not.
        folder: for models, logs and sockets.
        model: parameters of the simulated model.
        settings: of the servers.
    """
    place = folder / "models" / MODEL
    place.mkdir(parents=True)
    (place / "config.pbtxt").write_text(simulated_config(**model))
    servers = [Server(chr(ord("A") + index), folder, settings or {}) for index in range(count)]
    try:
        for server in servers[:3]:
            server.start()
        for server in servers[:3]:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.signal(signal.SIGKILL)
        for server in servers:
            server.wait_end()
