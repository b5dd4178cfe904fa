"""A `forebay serve` in a process of its own, as users run it, for measurements from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

START_TIMEOUT_S = 60.0
SHOWN_LOG_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        address: host:port.
        uds: unix address for gRPC.
        process: for CPU time and memory; of several, the first server.
        others: pids of the other servers behind the port.
    """

    address: str
    uds: str
    process: psutil.Process
    others: tuple[int, ...] = ()

    def cpu_s(self) -> float:
        """CPU seconds (user and system) that all servers have used, by the processes' own CPU clocks.

        The clock's number is that of clock_getcpuclockid(3); `psutil` counts in ticks of 10 ms.
        """
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in (self.process.pid, *self.others))

    def pss_bytes(self) -> int:
        """Proportional set size: memory of this process, shared pages divided among their users."""
        return int(self.process.memory_full_info().pss)


def simulated_config(**options: object) -> str:
    """Return a config.pbtxt of the simulated backend."""
    max_batch_size = options.pop("max_batch_size", 32)
    lines = ['backend: "simulated"', f"max_batch_size: {max_batch_size}"]
    lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in options.items()]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running_server(
    configs: Mapping[str, str] | None = None,
    *flags: str,
    model_repository: Path | None = None,
    front_ends: int = 0,
    module: str = "forebay_server.service",
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Serve models for the duration of a with-block.

    Args:
        configs: config.pbtxt by model name, for a repository made for the occasion.
        flags: more flags of `forebay serve`.
        model_repository: an existing repository instead; None and no configs: the bundled one.
        front_ends: number of front-end processes; 0: one process for all.
        module: the command, which takes `serve` and its flags.
        environment: added to this process's.
    """
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        root = Path(folder)
        if configs is not None:
            model_repository = root / "models"
            for name, config in configs.items():
                (model_repository / name).mkdir(parents=True)
                (model_repository / name / "config.pbtxt").write_text(config)
        uds = root / "forebay.sock"
        place = ["--address", "127.0.0.1:0", "--uds", str(uds), "--front-ends", str(front_ends)]
        command = [sys.executable, "-m", module, "serve", *place, *flags]
        if model_repository is not None:
            command += ["--model-repository", str(model_repository)]
        with (root / "log").open("w+") as log:
            added = os.environ | dict(environment or {})
            server = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=root, env=added
            )
            try:
                line = server.stdout.readline() if server.stdout is not None else ""
                if not line:
                    server.wait(START_TIMEOUT_S)
                    log.seek(0)
                    raise RuntimeError(f"the server did not start:\n{log.read()}")
                ready = json.loads(line)
                pid, *others = [each["pid"] for each in ready.get("processes", [ready])]
                with _log_shown_at_an_error(log):
                    yield RunningServer(ready["address"], f"unix:{uds}", psutil.Process(pid), tuple(others))
            finally:
                if server.poll() is None:
                    os.kill(server.pid, signal.SIGTERM)
                try:
                    server.wait(START_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
                if server.stdout is not None:
                    server.stdout.close()


@contextlib.contextmanager
def _log_shown_at_an_error(log: IO[str]) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.seek(0)
        lines = "".join(line for line in log if '"level": "info"' not in line)[-SHOWN_LOG_CHARACTERS:]
        sys.stderr.write(f"the server's log, without its lines of level info, ends with:\n{lines}\n")
        raise


@contextlib.contextmanager
def bare_server(*command: str) -> Iterator[RunningServer]:
    """Run a server without a pipeline for the duration of a with-block.

    Args:
        command: module and arguments; it takes addresses to listen on and prints `listening PORT`.
    """
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        uds = f"unix:{Path(folder) / 'bare.sock'}"
        line = [sys.executable, "-m", *command, "127.0.0.1:0", uds]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                words = process.stdout.readline().split() if process.stdout is not None else []
                if len(words) != 2:
                    raise RuntimeError(f"{command[0]} did not start; its output is above")
                yield RunningServer(f"127.0.0.1:{words[1]}", uds, psutil.Process(process.pid))
            finally:
                process.terminate()
