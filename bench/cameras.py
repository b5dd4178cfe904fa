"""The batch former end to end: cameras over gRPC against a slow simulated engine, server and client on one machine.

t(b) = 15 + 1*b ms, at most 32 rows: 681 frames per second. 20 cameras of 30 frames per second are 0.88 of that, 27 are
1.19 times as much. In time is at the client within 100 ms of the intended send. With `--overload` the same engine
under 1.2 to 3 times its capacity (`bench.overload`).
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from forebay_server.bench.overload_account import FrameAccount, account_of, frames_of
from forebay_server.bench.server_process import running_server, simulated_config

FRAME_BYTES = 602_112  # 3 x 224 x 224 in FP32
ALPHA_MS, BETA_MS, LARGEST = 15, 1, 32
FPS = 30.0
CAPACITY_PER_S = LARGEST / (ALPHA_MS + BETA_MS * LARGEST) * 1e3
CAMERAS = (20, 27)
SECONDS = 20.0
LEAST_SHARE = 0.97
WINDOW = 16
WARM_UP_SHARE = 0.1
GUARD_S = 120.0  # above the time of a run


@dataclass(frozen=True, slots=True)
class CamerasResult:
    """One number of cameras: the client's measurements, and their share of the possible."""

    cameras: int
    share: float
    account: FrameAccount
    transport_ms: float
    client_cpu_s: float
    server_cpu_s: float


def measure_cameras(cameras: int, seconds: float = SECONDS, transport: str = "tcp") -> CamerasResult:
    """Run one number of cameras against a server of its own."""
    config = simulated_config(alpha_ms=ALPHA_MS, beta_ms=BETA_MS, input_bytes=FRAME_BYTES, max_batch_size=LARGEST)
    with running_server({"slow": config}) as server:
        address = server.address if transport == "tcp" else server.uds
        before_s = server.cpu_s()
        client = _run_client(address, cameras, seconds)
        cpu_s = server.cpu_s() - before_s
    account = account_of(frames_of(client), seconds * (1.0 - WARM_UP_SHARE))
    share = account.share_of(CAPACITY_PER_S)
    return CamerasResult(cameras, share, account, client["transport_ms"], client["cpu_s"], cpu_s)


def _run_client(address: str, cameras: int, seconds: float) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "forebay_server.bench.camera_load",
        address,
        "slow",
        "--payload-bytes",
        str(FRAME_BYTES),
    ]
    command += ["--cameras", str(cameras), "--fps", str(FPS), "--seconds", str(seconds), "--window", str(WINDOW)]
    command += ["--warm-up", str(WARM_UP_SHARE * seconds)]
    output = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + GUARD_S
    ).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def main() -> None:
    """Measure and print."""
    from forebay_server.bench import overload_command  # it measures with the constants of this module

    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.cameras", description=__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=CAMERAS, metavar="N", help="one run for each number")
    parser.add_argument("--seconds", type=float, default=None, help=f"of one run (default: {SECONDS:g})")
    parser.add_argument("--transport", choices=("tcp", "uds"), default="tcp")
    overload_command.add_options(parser)
    given = parser.parse_args()
    if min(given.cameras) < 1 or (given.seconds is not None and given.seconds <= 0):
        parser.error("--cameras and --seconds must be above 0")
    if given.overload:
        sys.exit(0 if overload_command.run_overload(given, given.seconds) else 1)
    print(f"cameras of {FPS:g} fps, {FRAME_BYTES} bytes a frame, engine {ALPHA_MS}+{BETA_MS}*b ms, at most {LARGEST}")
    for cameras in given.cameras:
        result = measure_cameras(cameras, given.seconds or SECONDS, given.transport)
        account = result.account
        fates = ", ".join(f"{count} {fate}" for fate, count in account.fates.items() if count)
        print(
            f"  {cameras} cameras: {account.in_time_per_s:.0f}/s in time of {account.offered_per_s:.0f}/s offered, "
            f"{result.share:.1%} of the possible; p50 {account.p50_ms:.1f} ms, p99 {account.p99_ms:.1f} ms; "
            f"{fates}; transport {result.transport_ms:.1f} ms, client {account.lag_p99_ms:.1f} "
            f"ms late (p99), server CPU {result.server_cpu_s:.1f} s, client CPU {result.client_cpu_s:.1f} s"
        )


if __name__ == "__main__":
    main()
