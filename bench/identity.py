"""What a frame costs when the model costs nothing: server CPU per frame, and the round trip of one frame alone.

The simulated engine takes no time but reads the whole input: its answer is a checksum. Everything else is real:
gRPC over TCP, the session, the former, the three stages. Each number is the median of several repeats, with spread.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from bench.server_process import RunningServer, running_server, simulated_config

IDENTITY_BYTES = 150_528  # 224 x 224 x 3


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of several repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Summarise."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.most:.3f})"


@dataclass(frozen=True, slots=True)
class IdentityResult:
    """CPU milliseconds per frame of server and client at 32 in flight, and round trips of one frame alone."""

    payload_bytes: int
    transport: str
    server_cpu_ms: Spread
    client_cpu_ms: Spread
    frames_per_s: Spread
    lone_p50_ms: Spread


def offer(server: RunningServer, address: str, payload_bytes: int, **options: int) -> dict[str, Any]:
    """Run the load in a process of its own; return its result with the server's CPU per frame added."""
    command = [sys.executable, "-m", "bench.frame_load", address, "identity", "--payload-bytes", str(payload_bytes)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    before_s = server.cpu_s()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    result: dict[str, Any] = json.loads(output)
    if result["not_ok"]:
        raise RuntimeError(f"{result['not_ok']} of {result['frames']} frames were not OK: the measurement is void")
    result["server_cpu_ms"] = (server.cpu_s() - before_s) * 1e3 / result["frames"]
    return result


def measure_identity(
    payload_bytes: int = IDENTITY_BYTES, transport: str = "tcp", frames: int = 8000, repeats: int = 5
) -> IdentityResult:
    """Measure one payload size over one transport."""
    config = simulated_config(alpha_ms=0, beta_ms=0, input_bytes=payload_bytes)
    loaded, alone = [], []
    with running_server({"identity": config}) as server:
        address = server.address if transport == "tcp" else server.uds
        offer(server, address, payload_bytes, streams=4, window=8, frames=frames // 4)  # warm up
        for _ in range(repeats):
            loaded.append(offer(server, address, payload_bytes, streams=4, window=8, frames=frames))
            alone.append(offer(server, address, payload_bytes, streams=1, window=1, frames=frames // 8))
    return IdentityResult(
        payload_bytes=payload_bytes,
        transport=transport,
        server_cpu_ms=Spread.of([run["server_cpu_ms"] for run in loaded]),
        client_cpu_ms=Spread.of([run["client_cpu_s"] * 1e3 / run["frames"] for run in loaded]),
        frames_per_s=Spread.of([run["frames"] / run["wall_s"] for run in loaded]),
        lone_p50_ms=Spread.of([run["p50_ms"] for run in alone]),
    )


def main() -> None:
    """Measure and print."""
    result = measure_identity()
    print(f"identity, {result.payload_bytes} bytes, {result.transport}; median (least to most) of the repeats")
    print(f"  server CPU per frame, 32 in flight  {result.server_cpu_ms} ms")
    print(f"  client CPU per frame                {result.client_cpu_ms} ms")
    print(f"  frames per second                   {result.frames_per_s}")
    print(f"  one in flight, p50                  {result.lone_p50_ms} ms")


if __name__ == "__main__":
    main()
