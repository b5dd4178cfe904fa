"""The section that watches a server's memory, on the host and on the GPU, over minutes of camera load."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from forebay_server.bench.gpu.loads import ServedModel, cameras_load, repeated, write_payloads
from forebay_server.bench.gpu.memory import gpu_mib, resident_by_kind
from forebay_server.bench.gpu.numbers import slope
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.server import ServedNetwork, gpu_server

CAMERAS = 16
SAMPLE_PERIOD_S = 2.0
DRY_SAMPLE_PERIOD_S = 0.1
LEAST_SECONDS = 60.0
SETTLING_SHARE = 0.2
"""Of the time, at its beginning: buffers reach their size. It is shown and does not count for the slope."""


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """16 raw cameras with typed results, one sample every two seconds, and the slope of the samples after settling."""
    is_dry = plan.memory_seconds < LEAST_SECONDS
    period_s = DRY_SAMPLE_PERIOD_S if is_dry else SAMPLE_PERIOD_S
    count = min(CAMERAS, plan.cameras[-1])
    model = ServedNetwork(plan.detector, plan.batch_sizes[-1], is_typed=True)
    samples: list[dict[str, float]] = []
    is_over = threading.Event()
    payload = write_payloads(plan)[plan.detector]
    with gpu_server(plan, {"detector": model}) as server:
        idle = {"resident": resident_by_kind(server.pid), "gpu_mib": gpu_mib()}
        started = time.perf_counter()

        def watch() -> None:
            while not is_over.wait(period_s):
                rss_mib = server.running.process.memory_info().rss / 2**20
                now_s = time.perf_counter() - started
                samples.append({"at_s": now_s, "rss_mib": rss_mib, "gpu_mib": gpu_mib()})

        target = ServedModel([server], "detector", payload)
        load = cameras_load(target, plan.worker_count, count, "every")
        thread = threading.Thread(target=watch, name="watch")
        thread.start()
        try:
            result = repeated(target, load, replace(plan, load_seconds=plan.memory_seconds, repeats=1))
        finally:
            is_over.set()
            thread.join()
        loaded = {"resident": resident_by_kind(server.pid), "gpu_mib": gpu_mib()}
    settled = samples[int(len(samples) * SETTLING_SHARE) :]
    slopes = {}
    for name in ("rss_mib", "gpu_mib"):
        found = slope([sample["at_s"] for sample in settled], [sample[name] for sample in settled])
        slopes[name] = None if found is None else asdict(found)
    facts = {"cameras": count, "seconds": plan.memory_seconds, "settling_share": SETTLING_SHARE}
    yield facts | {"load": result, "before": idle, "after": loaded, "slope_per_hour": slopes, "samples": samples}
