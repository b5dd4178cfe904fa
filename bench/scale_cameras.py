"""Cameras of the client library for `bench.scaling`: they send until a line comes on standard input, then report.

Run as a separate process: `python -m forebay_server.bench.scale_cameras ADDRESS MODEL FPS...`, with one number for each
camera. It prints `ready` once every stream is open, and at the end one JSON object for each camera: the times at which
it sent its frames, its results as [seq, status, time, number of the call], and how often a frame was sent again. Times
are in ns of the monotonic clock. All cameras are streams of one client, whose log's lines are in the first report.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from typing import Any

import forebay
import forebay.aio

ROW = b"\0" * 1024
LAST_ANSWERS_S = 30.0
MOST_LINES = 1000


class Camera:
    """One camera: every frame counts. Owner: the event loop."""

    def __init__(self, client: forebay.aio.Client, model: str, number: int, fps: float) -> None:
        self._stream: forebay.aio.Stream = client.stream(
            f"camera {number}", model=model, encoding="tensor", delivery="every", queue_frames=64
        )
        self._interval_s = 1 / fps
        self._phase_s = self._interval_s * (number * 0.61803 % 1)
        self._sent_ns: list[int] = []
        self._results: list[tuple[int, str, int, int]] = []

    async def open(self) -> None:
        """Open the stream."""
        await self._stream.open()

    async def play(self, stop: asyncio.Event) -> dict[str, Any]:
        """Send until `stop`, take every result, and return the report."""
        receiving = asyncio.create_task(self._receive())
        due_s = time.monotonic() + self._phase_s
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._stream.send(ROW)
            self._sent_ns.append(time.monotonic_ns())
            due_s = max(due_s + self._interval_s, time.monotonic() - 1)
        await self._stream.close(LAST_ANSWERS_S)
        await asyncio.wait([receiving], timeout=LAST_ANSWERS_S)
        receiving.cancel()
        counts = self._stream.statistics()
        return {"sent_ns": self._sent_ns, "resent": counts.resent, "opened": counts.opened, "results": self._results}

    async def _receive(self) -> None:
        async for result in self._stream:
            opened = self._stream.statistics().opened
            self._results.append((result.seq, result.status.value, time.monotonic_ns(), opened))


class Lines(logging.Handler):
    """Keeps the first lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if len(self.lines) < MOST_LINES:
            self.lines.append(record.getMessage())


async def play(address: str, model: str, fps: list[float]) -> list[dict[str, Any]]:
    """Play all cameras until a line comes on standard input; return their reports."""
    stop, said = asyncio.Event(), Lines()
    logging.getLogger("forebay").addHandler(said)
    logging.getLogger("forebay").setLevel(logging.INFO)
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    async with forebay.aio.Client(address) as client:
        cameras = [Camera(client, model, number, each) for number, each in enumerate(fps)]
        for camera in cameras:
            await camera.open()
        print("ready", flush=True)
        try:
            reports = list(await asyncio.gather(*(camera.play(stop) for camera in cameras)))
            return [{**reports[0], "said": said.lines}, *reports[1:]]
        finally:
            asyncio.get_running_loop().remove_reader(sys.stdin)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("fps", type=float, nargs="+")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(play(given.address, given.model, given.fps))))


if __name__ == "__main__":
    main()
