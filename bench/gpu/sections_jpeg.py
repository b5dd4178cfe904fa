"""JPEG cameras whose frames the CPU decodes, and the same cameras with a GPU that decodes, by turns in one run."""

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forebay_server.bench.gpu.loads import ServedModel, cameras_load
from forebay_server.bench.gpu.memory import gpu_mib
from forebay_server.bench.gpu.plan import MODELS, Plan
from forebay_server.bench.gpu.server import HTTP_TIMEOUT_S, GpuServer, ServedNetwork, gpu_group
from forebay_server.bench.server_process import RunningServer

SIZE = (640, 480)
LEAST_BYTES = 95_000
MIB = 1 << 20
SETTING = "FOREBAY_IMAGE_DECODE"
FAMILY = "forebay_pictures_total"


def jpeg_cameras(plan: Plan) -> Iterator[dict[str, Any]]:
    """64 and 128 cameras of 640x480, about 100 KB and 30 frames a second each, on the detector with typed results."""
    payload = write_picture(plan.work / "camera-640x480.jpg")
    models = {"typed": ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True)}
    front_ends = max(plan.front_ends)
    for decode in ("cpu", "gpu") if plan.device == "cuda" else ("cpu", "auto"):
        os.environ[SETTING] = decode
        try:
            with gpu_group(plan, models, front_ends) as server:
                for count in plan.decode_cameras:
                    target = ServedModel([server], "typed", payload, is_jpeg=True)
                    facts = {"decode": decode, "cameras": count, "front_ends": front_ends}
                    facts["file_bytes"] = payload.stat().st_size
                    yield facts | measured(plan, server, target, count)
        finally:
            del os.environ[SETTING]


def measured(plan: Plan, server: GpuServer, target: ServedModel, count: int) -> dict[str, Any]:
    """Run cameras; return their result, CPU a frame of the server and of its engine process, memory, and decoders."""
    load = cameras_load(target, min(plan.group_clients, count), count, "every")
    load(plan.group_camera_seconds / 3)  # the first frames touch memory
    engine = RunningServer("", "", server.running.process)
    before_s, engine_s, before = server.running.cpu_s(), engine.cpu_s(), memory(server)
    found = load(plan.group_camera_seconds)
    rows = max(1.0, found["frames"])
    found["server_cpu_ms_per_row"] = (server.running.cpu_s() - before_s) * 1e3 / rows
    found["engine_cpu_ms_per_row"] = (engine.cpu_s() - engine_s) * 1e3 / rows
    return found | {"before": before, "after": memory(server), "pictures": pictures(server)}


def memory(server: GpuServer) -> dict[str, float]:
    """Return the memory of the engine process, and of the GPU."""
    return {"pss_mib": server.running.pss_bytes() / MIB, "gpu_mib": gpu_mib()}


def pictures(server: GpuServer) -> dict[str, int]:
    """Return the server's counts of JPEG frames by who decoded them."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=HTTP_TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(f"{FAMILY}{{"))
    return {labels.partition('by="')[2].partition('"')[0]: int(float(value)) for labels, value in found}


def write_picture(path: Path) -> Path:
    """Write a picture of the bundled clip as a JPEG of the least quality with LEAST_BYTES."""
    import cv2

    clip = cv2.VideoCapture(str(MODELS / "pedestrians.mp4"))
    is_read, picture = clip.read()
    clip.release()
    if not is_read:
        raise RuntimeError("the bundled clip cannot be read")
    picture = cv2.resize(picture, SIZE)
    files = (cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for quality in range(80, 101))
    path.write_bytes(bytes(next(file for file in files if len(file) >= LEAST_BYTES)))
    return path
