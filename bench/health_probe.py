"""Asks a server for its health again and again, on a connection of its own: how long an orchestrator would wait.

Run as a process of its own: `python -m forebay_server.bench.health_probe ADDRESS`. It prints `ready`, reads from
standard input when to start (seconds of the monotonic clock), and prints one JSON object.
"""

import argparse
import json
import sys
import time
from typing import Any

PERIOD_S = 0.1
DEADLINE_S = 5.0
METHOD = "/grpc.health.v1.Health/Check"


def main() -> None:
    """Parse arguments, probe, print."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.health_probe", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    from forebay_server.service.tuning import tune_process

    tune_process()
    import grpc

    with grpc.insecure_channel(given.address) as channel:
        check: Any = channel.unary_unary(METHOD)  # type: ignore[call-arg]  # no serializers: an empty request asks for the server as a whole
        check(b"", timeout=DEADLINE_S)
        print("ready", flush=True)
        start = float(sys.stdin.readline())
        answers_ms: list[float] = []
        failed = 0
        for index in range(int(given.seconds / PERIOD_S)):
            time.sleep(max(0.0, start + index * PERIOD_S - time.monotonic()))  # noqa: TID251 - the probe's own pace
            asked = time.monotonic()
            try:
                check(b"", timeout=DEADLINE_S)
                answers_ms.append((time.monotonic() - asked) * 1e3)
            except grpc.RpcError:
                failed += 1
    print(json.dumps({"answers_ms": answers_ms, "failed": failed}))


if __name__ == "__main__":
    main()
