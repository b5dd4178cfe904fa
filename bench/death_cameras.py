"""Cameras of the client library for `bench.deaths`: they send until a line comes on standard input, then report.

Run as a separate process: `python -m forebay_server.bench.death_cameras ADDRESS MODEL EVERY LATEST FPS BYTES`. It
prints `ready`, and at the end one JSON object: for each camera its delivery, how many frames it sent, its results as
[seq, status, time in ns of the monotonic clock, number of the connection], and how often a frame was sent again.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Any, Literal

import forebay.aio

LAST_ANSWERS_S = 30.0


class Camera:
    """One camera with a connection of its own. Owner: the event loop."""

    def __init__(
        self, address: str, model: str, delivery: Literal["every", "latest"], number: int, fps: float, row: bytes
    ) -> None:
        self._client = forebay.aio.Client(address)
        self._stream: forebay.aio.Stream = self._client.stream(
            f"{delivery} {number}", model=model, encoding="tensor", delivery=delivery, budget_ms=10_000
        )
        self._delivery = delivery
        self._interval_s = 1 / fps
        self._row = row
        self._sent = 0
        self._results: list[tuple[int, str, int, int]] = []

    async def play(self, stop: asyncio.Event) -> dict[str, Any]:
        """Send until `stop`, take every result, and return the report."""
        receiving = asyncio.create_task(self._receive())
        due_s = time.monotonic()
        while not stop.is_set():
            await self._stream.send(self._row)
            self._sent += 1
            due_s = max(due_s + self._interval_s, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await self._stream.close()
        await asyncio.wait([receiving], timeout=LAST_ANSWERS_S)
        receiving.cancel()
        resent = self._stream.statistics().resent
        await self._client.close()
        return {"delivery": self._delivery, "sent": self._sent, "resent": resent, "results": self._results}

    async def _receive(self) -> None:
        async for result in self._stream:
            opened = self._stream.statistics().opened
            self._results.append((result.seq, result.status.value, time.monotonic_ns(), opened))


async def play(address: str, model: str, every: int, latest: int, fps: float, row: bytes) -> list[dict[str, Any]]:
    """Play all cameras until a line comes on standard input; return their reports."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    cameras = [Camera(address, model, "every", number, fps, row) for number in range(every)]
    cameras += [Camera(address, model, "latest", number, fps, row) for number in range(latest)]
    print("ready", flush=True)
    try:
        return list(await asyncio.gather(*(camera.play(stop) for camera in cameras)))
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("every", type=int)
    parser.add_argument("latest", type=int)
    parser.add_argument("fps", type=float)
    parser.add_argument("row_bytes", type=int)
    given = parser.parse_args()
    playing = play(given.address, given.model, given.every, given.latest, given.fps, bytes(given.row_bytes))
    print(json.dumps(asyncio.run(playing)))


if __name__ == "__main__":
    main()
