"""The sections that watch a server's memory, on the host and on the GPU, over minutes of camera load."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import psutil

from forebay_server.bench.gpu.loads import ServedModel, cameras_load, repeated, write_payloads
from forebay_server.bench.gpu.memory import gpu_mib, resident_by_kind
from forebay_server.bench.gpu.numbers import slope
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.sections_jpeg import write_picture
from forebay_server.bench.gpu.sections_video import CAMERAS_READY_PER_S, write_clip
from forebay_server.bench.gpu.server import GpuServer, ServedNetwork, gpu_group, gpu_server

CAMERAS = 16
JPEG_CAMERAS, VIDEO_CAMERAS = 16, 64
SAMPLE_PERIOD_S = 2.0
DRY_SAMPLE_PERIOD_S = 0.1
LEAST_SECONDS = 60.0
SETTLING_SHARE = 0.2
"""Of the time, at its beginning: buffers reach their size. It is shown and does not count for the slope."""


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """16 raw cameras with typed results, one sample every two seconds, and the slope of the samples after settling."""
    count = min(CAMERAS, plan.cameras[-1])
    model = ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True)
    payload = write_payloads(plan)[plan.detector]
    with gpu_server(plan, {"detector": model}) as server:
        idle = {"resident": resident_by_kind(server.pid), "gpu_mib": gpu_mib()}
        target = ServedModel([server], "detector", payload)
        load = cameras_load(target, plan.worker_count, count, "every")
        long = replace(plan, load_seconds=plan.memory_seconds, repeats=1)
        found = _watched(plan, server, lambda: repeated(target, load, long))
        loaded = {"resident": resident_by_kind(server.pid), "gpu_mib": gpu_mib()}
    yield {"cameras": count, "before": idle, "after": loaded} | found


def decode_memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """The same with a GPU that decodes: 16 JPEG cameras and 64 of H.264 before front-end processes."""
    models = {"typed": ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True)}
    jpegs, videos = (min(count, plan.video_cameras[-1]) for count in (JPEG_CAMERAS, VIDEO_CAMERAS))
    picture, (clip, _) = write_picture(plan.work / "memory.jpg"), write_clip(plan.work / "memory.units")
    front_ends, warm_up_s = 2 * max(plan.front_ends), videos / CAMERAS_READY_PER_S
    with gpu_group(plan, models, front_ends) as server, ThreadPoolExecutor(2) as pool:
        pair = (
            ServedModel((server,), "typed", picture, is_jpeg=True),
            ServedModel((server,), "typed", clip, is_video=True),
        )
        loads = [
            cameras_load(target, min(plan.group_clients, count), count, "every", warm_up_s)
            for target, count in zip(pair, (jpegs, videos), strict=True)
        ]

        def run() -> dict[str, Any]:
            runs = [pool.submit(load, warm_up_s + plan.memory_seconds) for load in loads]
            return dict(zip(("jpeg", "video"), (run.result() for run in runs), strict=True))

        found = _watched(plan, server, run)
    yield {"jpeg_cameras": jpegs, "video_cameras": videos, "front_ends": front_ends} | found


def _watched(plan: Plan, server: GpuServer, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a load; return its result, the memory of all processes of the server meanwhile, and its slope."""
    period_s = DRY_SAMPLE_PERIOD_S if plan.memory_seconds < LEAST_SECONDS else SAMPLE_PERIOD_S
    processes = [server.running.process, *map(psutil.Process, server.running.others)]
    samples: list[dict[str, float]] = []
    is_over = threading.Event()
    started = time.perf_counter()

    def watch() -> None:
        while not is_over.wait(period_s):
            rss_mib = sum(process.memory_info().rss for process in processes) / 2**20
            now_s = time.perf_counter() - started
            samples.append({"at_s": now_s, "rss_mib": rss_mib, "gpu_mib": gpu_mib()})

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    try:
        result = run()
    finally:
        is_over.set()
        thread.join()
    settled = samples[int(len(samples) * SETTLING_SHARE) :]
    slopes = {}
    for name in ("rss_mib", "gpu_mib"):
        found = slope([sample["at_s"] for sample in settled], [sample[name] for sample in settled])
        slopes[name] = None if found is None else asdict(found)
    facts = {"seconds": plan.memory_seconds, "settling_share": SETTLING_SHARE, "load": result}
    return facts | {"slope_per_hour": slopes, "samples": samples}
