"""Loads on servers from client processes, and the servers' own measurements meanwhile.

Every load is first repeated without observation; then it runs once more with a trace of the device, so that no latency
includes the making of a trace.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay_server.bench.gpu.numbers import jain_index, middle
from forebay_server.bench.gpu.plan import MODELS, Plan
from forebay_server.bench.gpu.server import SIDES, GpuServer, clients, device_use, write_trace
from forebay_server.bench.gpu.threads import thread_names, watched_threads
from forebay_server.bench.overload_account import Fate, account_of, frames_of, mean_stage_ms

CLIENT_TIMEOUT_S = 120.0
FPS = 30.0
LIMIT_MS = 100.0
CAMERA_WINDOW = 16
WARM_UP_SHARE = 0.1
OBSERVED_FACTOR = 2.0
TRACE_AFTER_SHARE = 0.6
"""A load is observed for longer, and the trace taken before its end, since clients start when they can."""
CLIENT_START_S = 1.0
"""About what a client process needs before it sends."""

Load = Callable[[float], dict[str, Any]]
"""Takes seconds, about; returns at least rows_per_s, p50_ms, p99_ms and frames (rows answered)."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on one or more servers.

    Attributes:
        servers: that share the clients.
        model: name on each of them.
        payload: file with the bytes of one row, one JPEG, or access units of H.264.
        is_jpeg: whether it is a JPEG.
        is_video: whether it has access units.
    """

    servers: Sequence[GpuServer]
    model: str
    payload: Path
    is_jpeg: bool = False
    is_video: bool = False

    @property
    def camera_flag(self) -> str:
        """Of bench.camera_load, before the file."""
        if self.is_video:
            return "--video"
        return "--jpeg" if self.is_jpeg else "--tensor"

    def address(self, client: int) -> str:
        """Return where the client of that number goes."""
        return self.servers[client % len(self.servers)].running.address

    def cpu_s(self) -> float:
        """CPU seconds of all servers together."""
        return sum(server.running.cpu_s() for server in self.servers)


def frames_load(target: ServedModel, worker_count: int, window: int) -> Load:
    """Closed loop on streams: so many clients, one stream each, `window` frames in flight."""
    rate_per_worker = [0.0]

    def load(seconds: float) -> dict[str, Any]:
        count = max(int(seconds * rate_per_worker[0]), 2 * window + 1)
        more = ["--payload-file", str(target.payload), "--streams", "1", "--window", str(window)]
        arguments = [[target.address(i), target.model, *more, "--frames", str(count)] for i in range(worker_count)]
        results = clients("forebay_server.bench.frame_load", arguments, CLIENT_TIMEOUT_S)
        rate_per_worker[0] = sum(r["frames"] / r["wall_s"] for r in results) / worker_count
        return frames_result(results)

    load(0.0)  # connections, lazy imports, and how fast it is
    return load


def frames_result(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the results of clients that ran `bench.frame_load` at once."""
    return {
        "rows_per_s": sum(r["frames"] / r["wall_s"] for r in results),
        "frames": sum(r["frames"] for r in results),
        "not_ok": sum(r["not_ok"] for r in results),
        "p50_ms": float(np.median([r["p50_ms"] for r in results])),
        "p99_ms": max(r["p99_ms"] for r in results),
        "mean_batch": float(np.mean([r["mean_batch"] for r in results])),
        "client_cpu_s": sum(r["client_cpu_s"] for r in results),
    }


def requests_load(target: ServedModel, worker_count: int, window: int, rows: int, side: int) -> Load:
    """Closed loop of requests of `rows` rows each."""

    def load(seconds: float) -> dict[str, Any]:
        more = ["--shape", f"{rows},{side},{side},3", "--window", str(window), "--seconds", str(seconds)]
        arguments = [[target.address(i), target.model, *more] for i in range(worker_count)]
        results = clients("forebay_server.bench.gpu.rows_load", arguments, CLIENT_TIMEOUT_S)
        return {
            "rows_per_s": sum(r["rows_per_s"] for r in results),
            "frames": sum(r["rows_per_s"] * r["wall_s"] for r in results),
            "p50_ms": float(np.median([r["p50_ms"] for r in results])),
            "p99_ms": max(r["p99_ms"] for r in results),
            "client_cpu_s": sum(r["client_cpu_s"] for r in results),
        }

    return load


def cameras_load(
    target: ServedModel, worker_count: int, count: int, delivery: str, warm_up_s: float | None = None
) -> Load:
    """Open loop: `count` cameras of 30 frames a second, a connection each; in time: 100 ms after the intended send.

    The first `warm_up_s` of a load count for nothing; a tenth of it if not given.
    """
    shares = [count // worker_count + (i < count % worker_count) for i in range(worker_count)]

    def load(seconds: float) -> dict[str, Any]:
        common = [target.camera_flag, str(target.payload), "--delivery", delivery]
        common += ["--fps", str(FPS), "--limit-ms", str(LIMIT_MS), "--seconds", str(seconds)]
        warm_s = WARM_UP_SHARE * seconds if warm_up_s is None else warm_up_s
        common += ["--window", str(CAMERA_WINDOW), "--warm-up", str(warm_s)]
        arguments = [
            [target.address(i), target.model, *common, "--cameras", str(n), "--connections", str(n), "--seed", str(i)]
            for i, n in enumerate(shares)
            if n
        ]
        results = clients("forebay_server.bench.camera_load", arguments, seconds * 3 + CLIENT_TIMEOUT_S)
        return _camera_result(results, seconds - warm_s)

    return load


def _camera_result(results: list[dict[str, Any]], span_s: float) -> dict[str, Any]:
    account = account_of([frame for result in results for frame in frames_of(result)], span_s)
    executed = account.fates[Fate.IN_TIME] + account.fates[Fate.LATE]
    others = {fate: n for fate, n in account.fates.items() if n and fate not in {Fate.IN_TIME, Fate.LATE}}
    return {
        "offered_per_s": account.offered_per_s,
        "in_time_share": account.in_time_per_s / account.offered_per_s,
        "rows_per_s": executed / span_s,
        "frames": executed,
        "p50_ms": account.p50_ms,
        "p99_ms": account.p99_ms,
        "moves": sum(result["moves"] for result in results),
        "jain": jain_index([count for result in results for count in result["in_time_by_camera"]]),
        "statuses": {"OK": executed, **others},
        "send_lag_p99_ms": account.lag_p99_ms,
        "mean_batch": account.mean_batch,
        "mean_stage_ms": mean_stage_ms(results, executed),
        "client_cpu_s": sum(result["cpu_s"] for result in results),
    }


def repeated(target: ServedModel, load: Load, plan: Plan) -> dict[str, Any]:
    """Run a load as often as the plan says, unobserved; return medians, the runs, and CPU a row by kind of thread."""
    names = {server.pid: thread_names(server.pid) for server in target.servers}
    runs, thread_s = [], dict[str, float]()
    for _ in range(plan.repeats):
        before_s = target.cpu_s()
        with ExitStack() as stack:
            found = [stack.enter_context(watched_threads(pid, names[pid])) for pid in names]
            run = load(plan.load_seconds)
        run["server_cpu_s"] = target.cpu_s() - before_s
        run["server_cpu_ms_per_row"] = run["server_cpu_s"] * 1e3 / max(1.0, run["frames"])
        for threads in found:
            for name, used_s in threads.items():
                thread_s[name] = thread_s.get(name, 0.0) + used_s
        runs.append(run)
    rows = max(1.0, sum(run["frames"] for run in runs))
    return middle(runs) | {
        "thread_cpu_us_per_row": {name: used_s * 1e6 / rows for name, used_s in thread_s.items()},
    }


def observed(target: ServedModel, load: Load, plan: Plan, trace_path: Path | None = None) -> dict[str, Any]:
    """Run a load once more and return what the device of the first server did; its latencies are thrown away.

    The end of the trace is written to `trace_path`, if given.
    """
    found: dict[str, Any] = {}
    seconds = plan.load_seconds * OBSERVED_FACTOR
    wait = threading.Event()

    def look() -> None:
        wait.wait(CLIENT_START_S + seconds * TRACE_AFTER_SHARE)
        trace = target.servers[0].trace()
        found.update(device_use(trace, target.model))
        if trace_path is not None:
            write_trace(trace, trace_path)

    thread = threading.Thread(target=look, name="look")
    thread.start()
    load(seconds)
    wait.set()
    thread.join()
    return found


def write_payloads(plan: Plan) -> dict[str, Path]:
    """Write one picture of the bundled clip as every network takes it, and as a JPEG; return the files by name."""
    import cv2

    clip = cv2.VideoCapture(str(MODELS / "pedestrians.mp4"))
    is_read, picture = clip.read()
    clip.release()
    if not is_read:
        raise RuntimeError("the bundled clip cannot be read")
    files = {}
    for network, side in SIDES.items():
        files[network] = plan.work / f"{network}.raw"
        files[network].write_bytes(cv2.resize(picture, (side, side)).tobytes())
    is_written, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not is_written:
        raise RuntimeError("no JPEG encoder")
    files["jpeg"] = plan.work / "camera.jpg"
    files["jpeg"].write_bytes(bytes(data))
    return files
