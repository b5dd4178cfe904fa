"""Ten ordinary cameras beside one stream that floods the server with 3,000 small frames a second, over gRPC.

The engine takes 3 + 0.2 b ms, so that the front end decides. Rounds with and without the flood take turns, and
the quietest round of each kind is compared: neighbours on the machine only make rounds slower.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from forebay_server.bench.overload_account import account_of, frames_of
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config

ROW_BYTES = 1024
CAMERAS, FPS, LIMIT_MS = 10, 30.0, 500.0
FLOOD = ("--rate", "3000", "--streams", "1", "--window", "16", "--tick-ms", "2", "--wait-s", "0")
WARM_UP_SHARE = 0.1
SETTLE_S = 2.0  # a flood begins before the cameras and ends after them
GUARD_S = 60.0
FLOODS = {
    "frames that are served in order, window 16": ("--payload-bytes", str(ROW_BYTES)),
    "frames that are served in order, window 256": ("--payload-bytes", str(ROW_BYTES), "--window", "256"),
    "frames that replace each other": ("--payload-bytes", str(ROW_BYTES), "--delivery", "latest"),
    "frames that are refused": ("--payload-bytes", "16"),
}


@dataclass(frozen=True, slots=True)
class FloodResult:
    """The cameras' latencies in their quietest rounds, in ms, and the server's cost of one frame of the flood."""

    alone_p99_ms: float
    beside_p99_ms: float
    frames_per_s: float
    cpu_us_per_frame: float

    @property
    def ratio(self) -> float:
        """How much worse the flood makes it."""
        return self.beside_p99_ms / self.alone_p99_ms


def measure_flood(options: tuple[str, ...], rounds: int, seconds: float) -> FloodResult:
    """Run rounds without and with a flood against one server."""
    config = simulated_config(alpha_ms=3, beta_ms=0.2, input_bytes=ROW_BYTES, max_batch_size=32)
    alone, beside, frames, cpu_s = [], [], 0, 0.0
    with running_server({"fast": config}) as server:
        for _ in range(rounds):
            calm_s, p99_ms = _cameras(server, seconds)
            alone.append(p99_ms)
            with _client(server, "frame_load", *FLOOD, "--seconds", str(seconds + SETTLE_S), *options) as flood:
                busy_s, p99_ms = _cameras(server, seconds)
                beside.append(p99_ms)
                frames += _result(flood)["answered"]
            cpu_s += busy_s - calm_s
    per_s = frames / (rounds * (seconds + SETTLE_S))
    return FloodResult(min(alone), min(beside), per_s, cpu_s * 1e6 / (per_s * rounds * seconds))


def _client(server: RunningServer, module: str, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"forebay_server.bench.{module}", server.address, "fast", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603


def _result(client: "subprocess.Popen[str]") -> dict[str, Any]:
    result: dict[str, Any] = json.loads(client.communicate(timeout=GUARD_S)[0])
    return result


def _cameras(server: RunningServer, seconds: float) -> tuple[float, float]:
    """Return the server's CPU seconds meanwhile, and the p99 of the cameras in ms."""
    options = ["--payload-bytes", str(ROW_BYTES), "--cameras", str(CAMERAS), "--fps", str(FPS)]
    options += ["--warm-up", str(WARM_UP_SHARE * seconds)]
    before_s = server.cpu_s()
    with _client(server, "camera_load", *options, "--seconds", str(seconds), "--limit-ms", str(LIMIT_MS)) as cameras:
        result = _result(cameras)
    account = account_of(frames_of(result), seconds * (1.0 - WARM_UP_SHARE))
    return server.cpu_s() - before_s, account.p99_ms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.floods", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="with and without the flood")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one round")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    print(f"{CAMERAS} cameras of {FPS:g} fps, {ROW_BYTES} bytes a frame, engine 3+0.2*b ms; flood of 3,000 a second")
    for name, options in FLOODS.items():
        result = measure_flood(options, given.rounds, given.seconds)
        latency = f"p99 {result.beside_p99_ms:.1f} ms, alone {result.alone_p99_ms:.1f} ms, ratio {result.ratio:.2f}"
        cost = f"{result.frames_per_s:.0f} a second of it answered, server CPU {result.cpu_us_per_frame:.0f} us each"
        print(f"  {name}: {latency}; {cost}")


if __name__ == "__main__":
    main()
