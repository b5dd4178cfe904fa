"""The sections that serve over gRPC: closed loop, cameras, and memory over minutes of load."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.plan import Plan
from bench.gpu.server import SIDES, GpuServer, clients, device_use, gpu_server, write_trace

DETECTOR_BYTES = SIDES["detector"] ** 2 * 3
CLIENT_TIMEOUT_S = 120.0
FPS = 30.0
LIMIT_MS = 100.0
CAMERAS_PER_CLIENT = 16
SAMPLE_PERIOD_S = 2.0


def served(plan: Plan) -> Iterator[dict[str, Any]]:
    """Frames of one row on streams, then requests of whole batches, as many in flight as keep the GPU busy."""
    networks = plan.networks[-2:]
    models = {f"{network}_b{rows}": (network, rows, 1) for network in networks for rows in plan.batch_sizes}
    with gpu_server(plan, models) as server:
        for name, (network, rows, _) in models.items():
            facts = {"network": network, "rows": rows}
            yield facts | {"way": "frames"} | _frames(server, plan, name, network, rows)
            yield facts | {"way": "requests of whole batches"} | _rows(server, plan, name, network, rows)
        trace = server.trace()
        write_trace(trace, plan.out / "trace-served.json")


def _observed(server: GpuServer, model: str, load: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Run a load, look at the server's trace while it lasts, and add what the server did."""
    found: dict[str, Any] = {}

    def look() -> None:
        found.update(device_use(server.trace(), model))

    before_s = server.running.cpu_s()
    timer = _after(seconds, look)
    result = load()
    timer.join()
    cpu_s = server.running.cpu_s() - before_s
    return result | {"server_cpu_s": cpu_s, "device": found}


def _after(seconds: float, call: Callable[[], None]) -> threading.Thread:
    wait = threading.Event()

    def later() -> None:
        wait.wait(seconds)
        call()

    thread = threading.Thread(target=later, name="look")
    thread.start()
    return thread


def _frames(server: GpuServer, plan: Plan, model: str, network: str, rows: int) -> dict[str, Any]:
    nbytes = SIDES[network] ** 2 * 3
    window = max(1, min(32, 3 * rows // plan.worker_count))
    count = int(plan.load_seconds * (450 if network == "resnet50" else 250)) if plan.device == "cuda" else 8
    arguments = [server.running.address, model, "--payload-bytes", str(nbytes), "--streams", "1"]
    arguments += ["--window", str(window), "--frames", str(max(count, window + 1))]

    def load() -> dict[str, Any]:
        results = clients("bench.frame_load", [arguments] * plan.worker_count, CLIENT_TIMEOUT_S)
        return {
            "in_flight": window * plan.worker_count,
            "rows_per_s": sum(r["frames"] / r["wall_s"] for r in results),
            "frames": sum(r["frames"] for r in results),
            "not_ok": sum(r["not_ok"] for r in results),
            "p50_ms": max(r["p50_ms"] for r in results),
            "p99_ms": max(r["p99_ms"] for r in results),
        }

    result = _observed(server, model, load, plan.load_seconds * 0.75)
    return result | {"server_cpu_ms_per_frame": result["server_cpu_s"] * 1e3 / result["frames"]}


def _rows(server: GpuServer, plan: Plan, model: str, network: str, rows: int) -> dict[str, Any]:
    shape = f"{rows},{SIDES[network]},{SIDES[network]},3"
    window = 1 if rows > 1 else 2
    arguments = [server.running.address, model, "--shape", shape, "--window", str(window)]
    arguments += ["--seconds", str(plan.load_seconds)]

    def load() -> dict[str, Any]:
        results = clients("bench.gpu.rows_load", [arguments] * plan.worker_count, CLIENT_TIMEOUT_S)
        return {
            "in_flight": window * plan.worker_count,
            "rows_per_s": sum(r["rows_per_s"] for r in results),
            "p50_ms": max(r["p50_ms"] for r in results),
            "p99_ms": max(r["p99_ms"] for r in results),
        }

    return _observed(server, model, load, plan.load_seconds * 0.75 + 1.0)


def cameras(plan: Plan) -> Iterator[dict[str, Any]]:
    """1 to 64 cameras at 30 fps, raw and JPEG, on the detector; in time is within 100 ms of the intended send."""
    network = "detector_fp16" if "detector_fp16" in plan.networks else "detector"
    jpeg = plan.out / "camera.jpg"
    jpeg.write_bytes(picture())
    with gpu_server(plan, {"detector": (network, plan.batch_sizes[-1], 1)}) as server:
        for encoding in ("raw", "jpeg"):
            for count in plan.cameras:
                more = ["--jpeg", str(jpeg)] if encoding == "jpeg" else ["--payload-bytes", str(DETECTOR_BYTES)]
                yield {"encoding": encoding, "cameras": count, **_cameras(server, plan, count, more)}


def _cameras(server: GpuServer, plan: Plan, count: int, more: list[str], seconds: float = 0.0) -> dict[str, Any]:
    seconds = seconds or plan.load_seconds
    shares = [count // plan.worker_count + (i < count % plan.worker_count) for i in range(plan.worker_count)]
    common = [server.running.address, "detector", *more, "--fps", str(FPS), "--limit-ms", str(LIMIT_MS)]
    common += ["--seconds", str(seconds)]
    arguments = [[*common, "--cameras", str(n), "--seed", str(i)] for i, n in enumerate(shares) if n]

    def load() -> dict[str, Any]:
        results = clients("bench.camera_load", arguments, seconds * 3 + CLIENT_TIMEOUT_S)
        statuses: dict[str, int] = {}
        for result in results:
            for name, number in result["statuses"].items():
                statuses[name] = statuses.get(name, 0) + number
        offered = sum(r["offered_per_s"] for r in results)
        return {
            "offered_per_s": offered,
            "in_time_share": sum(r["in_time_per_s"] for r in results) / offered,
            "p50_ms": float(np.median([r["p50_ms"] for r in results])),
            "p99_ms": max(r["p99_ms"] for r in results),
            "statuses": statuses,
            "send_lag_p99_ms": max(r["send_lag_p99_ms"] for r in results),
            "mean_batch": float(np.mean([r["mean_batch"] for r in results])),
            "mean_stage_ms": results[0]["mean_stage_ms"],
            "client_cpu_s": sum(r["client_cpu_s"] for r in results),
        }

    return _observed(server, "detector", load, seconds * 0.8)


def picture() -> bytes:
    """Return a JPEG of 640 x 480 with detail like a photograph's: smoothed noise."""
    import cv2

    noise = np.random.default_rng(5).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), (0, 0), 1.5)
    is_written, data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not is_written:
        raise RuntimeError("no JPEG encoder")
    return bytes(data)


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """Watch the server's memory, on the host and on the GPU, over minutes of camera load."""
    count = plan.cameras[len(plan.cameras) // 2]
    network = "detector_fp16" if "detector_fp16" in plan.networks else "detector"
    samples: list[dict[str, float]] = []
    is_over = threading.Event()
    with gpu_server(plan, {"detector": (network, plan.batch_sizes[-1], 1)}) as server:

        def watch() -> None:
            while not is_over.wait(SAMPLE_PERIOD_S):
                rss = server.running.process.memory_info().rss
                samples.append({"rss_mib": rss / 2**20, "gpu_mib": gpu_mib(), "cpu_s": server.running.cpu_s()})

        thread = threading.Thread(target=watch, name="watch")
        thread.start()
        try:
            more = ["--payload-bytes", str(DETECTOR_BYTES)]
            result = _cameras(server, plan, count, more, plan.memory_seconds)
        finally:
            is_over.set()
            thread.join()
    yield {"cameras": count, "seconds": plan.memory_seconds, "load": result, "samples": samples}


def gpu_mib() -> float:
    """Return what all processes together hold of the GPU, 0 where there is none."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    if not any(Path(folder, "nvidia-smi").is_file() for folder in ("/usr/bin", "/usr/local/nvidia/bin", "/bin")):
        return 0.0
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603
