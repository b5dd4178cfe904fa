"""H.264 cameras whose frames the CPU decodes, and the same cameras with a GPU that decodes, by turns in one run."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.gpu.loads import CLIENT_START_S, ServedModel, cameras_load
from forebay_server.bench.gpu.plan import MODELS, Plan
from forebay_server.bench.gpu.sections_jpeg import memory
from forebay_server.bench.gpu.server import GpuServer, ServedNetwork, gpu_group
from forebay_server.bench.unit_file import write_units
from forebay_server.loadtest.target import Encoding
from forebay_server.loadtest.video import FRAMES_PER_S, access_units

SIZE = (1280, 720)
UNITS = 120
BITS_PER_S = 4_000_000
CAMERAS_READY_PER_S = 12
"""Decoders that a GPU has made in a second, at least. The CPU decodes a camera until it has one, so what cameras get in
the time that all of them take counts for nothing; and their connections stay, since others would meet processes with
other numbers of cameras."""
SETTING, MOST_STREAMS = "FOREBAY_VIDEO_DECODE", "FOREBAY_MAX_VIDEO_STREAMS"


def video_cameras(plan: Plan) -> Iterator[dict[str, Any]]:
    """64 to 256 cameras of 1280x720 at 4 Mbit/s and 30 frames a second, on the detector with typed results."""
    path, facts = write_clip(plan.work / "camera-1280x720.units")
    models = {"typed": ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True)}
    usual, more, first = max(plan.front_ends), 2 * max(plan.front_ends), plan.video_cameras[:1]
    for decode, front_ends, counts in (
        ("auto", usual, first),
        ("cpu", usual, first),
        ("auto", more, plan.video_cameras),
    ):
        os.environ |= {SETTING: decode, MOST_STREAMS: str(2 * max(plan.video_cameras))}
        try:
            for count in counts:
                with gpu_group(plan, models, front_ends) as server:
                    target = ServedModel([server], "typed", path, is_video=True)
                    cell = {"decode": decode, "cameras": count, "front_ends": front_ends} | facts
                    yield cell | _steady(plan, server, target, count)
        finally:
            del os.environ[SETTING], os.environ[MOST_STREAMS]


def _steady(plan: Plan, server: GpuServer, target: ServedModel, count: int) -> dict[str, Any]:
    """Run cameras; return the result, and the server's CPU a frame, of the time in which all have their decoder."""
    warm_up_s = plan.group_camera_seconds / 3 + count / CAMERAS_READY_PER_S
    load = cameras_load(target, min(plan.group_clients, count), count, "every", warm_up_s)
    used: list[float] = []

    def watch() -> None:
        wait = threading.Event().wait
        for pause_s in (warm_up_s + CLIENT_START_S, plan.group_camera_seconds - CLIENT_START_S):
            wait(pause_s)
            used.append(server.running.cpu_s())

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    found = load(warm_up_s + plan.group_camera_seconds)
    thread.join()
    rows = found["rows_per_s"] * (plan.group_camera_seconds - CLIENT_START_S)
    return found | {"server_cpu_ms_per_row": (used[1] - used[0]) * 1e3 / max(1.0, rows), "after": memory(server)}


def write_clip(path: Path) -> tuple[Path, dict[str, Any]]:
    """Write the bundled clip as H.264; return the file, and the bytes of a frame, also as JPEG."""
    pictures = _pictures()
    started = time.perf_counter()
    units = access_units(pictures, Encoding.H264, bits_per_s=BITS_PER_S)
    write_units(path, units)
    return path, {
        "unit_bytes": float(np.mean([len(unit) for unit in units])),
        "jpeg_bytes": _jpeg_bytes(pictures),
        "mbit_per_s": sum(map(len, units)) * 8e-6 * FRAMES_PER_S / len(units),
        "encoding_s": time.perf_counter() - started,
    }


def _pictures() -> Sequence[NDArray[np.uint8]]:
    import cv2

    clip = cv2.VideoCapture(str(MODELS / "pedestrians.mp4"))
    pictures: list[Any] = []
    while len(pictures) < UNITS:
        is_read, picture = clip.read()
        if not is_read:
            break
        pictures.append(cv2.resize(picture, SIZE))
    clip.release()
    if not pictures:
        raise RuntimeError("the bundled clip cannot be read")
    return pictures[: len(pictures) // FRAMES_PER_S * FRAMES_PER_S] or pictures


def _jpeg_bytes(pictures: Sequence[NDArray[np.uint8]]) -> float:
    import cv2

    files = (cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1] for picture in pictures)
    return float(np.mean([len(file) for file in files]))
