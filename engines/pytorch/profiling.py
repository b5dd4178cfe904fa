"""A torch.profiler trace of a model as it is served, for chrome://tracing or Perfetto."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def write_trace(run: Callable[[], object], runs: int, path: Path) -> list[tuple[str, float]]:
    """Profile `runs` calls, write the trace, and return the operators with their own time per call in us."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(runs):
            run()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    rows = [(event.key, _own_us(event) / runs) for event in profiler.key_averages()]
    return sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])


def _own_us(event: object) -> float:
    device_us = float(getattr(event, "self_device_time_total", 0.0))
    return device_us or float(getattr(event, "self_cpu_time_total", 0.0))
