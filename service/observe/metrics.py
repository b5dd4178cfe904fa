"""The nv_* metrics as Triton names them, in Prometheus' text format, for existing dashboards.

Written by hand: the usual library gives counters a suffix `_total` that those dashboards do not expect.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from forebay_server.service.journal.statistics import REASONS, VersionReport
from forebay_server.service.observe.exposition_text import escape
from forebay_server.service.observe.gpus import GpuNumbers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    kind: str
    text: str
    value: Callable[[VersionReport], float]


_FAMILIES = (
    _Family(
        "nv_inference_request_success", "counter", "Requests answered with outputs", lambda r: r.counts.success.count
    ),
    _Family("nv_inference_count", "counter", "Rows executed", lambda r: r.counts.rows),
    _Family("nv_inference_exec_count", "counter", "Batches executed", lambda r: r.counts.executions),
    _Family(
        "nv_inference_request_duration_us",
        "counter",
        "Time of the requests answered with outputs, from reading to handing the answer to the front end",
        lambda r: r.counts.success.ns // 1000,  # divided by request_success this is the mean, as with Triton
    ),
    _Family(
        "nv_inference_queue_duration_us", "counter", "Time waited for a batch", lambda r: r.counts.queue.ns // 1000
    ),
    _Family(
        "nv_inference_compute_input_duration_us", "counter", "Upload time", lambda r: r.counts.compute_input.ns // 1000
    ),
    _Family(
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Execution time",
        lambda r: r.counts.compute_infer.ns // 1000,
    ),
    _Family(
        "nv_inference_compute_output_duration_us",
        "counter",
        "Download time",
        lambda r: r.counts.compute_output.ns // 1000,
    ),
    _Family("nv_inference_pending_request_count", "gauge", "Requests that wait now", lambda r: r.pending),
    _Family("nv_model_load_duration_secs", "gauge", "Duration of the loading", lambda r: r.load_ns / 1e9),
)


_GPU_FAMILIES: tuple[tuple[str, str, str, Callable[[GpuNumbers], float | None]], ...] = (
    ("nv_gpu_utilization", "gauge", "Share of time in which a kernel ran, 0 to 1", lambda gpu: gpu.utilization),
    ("nv_gpu_memory_total_bytes", "gauge", "Memory of the GPU", lambda gpu: gpu.memory_total_bytes),
    ("nv_gpu_memory_used_bytes", "gauge", "Memory in use, all processes", lambda gpu: gpu.memory_used_bytes),
    ("nv_gpu_power_usage", "gauge", "Power in watts", lambda gpu: gpu.power_w),
    ("nv_gpu_power_limit", "gauge", "Enforced limit of the power in watts", lambda gpu: gpu.power_limit_w),
    ("nv_energy_consumption", "counter", "Energy in joules since the server started", lambda gpu: gpu.energy_j),
)


def render(reports: Iterable[VersionReport], gpus: Sequence[GpuNumbers] = ()) -> str:
    """Return the text of the nv_* metrics."""
    reports = list(reports)
    lines: list[str] = []
    for family in _FAMILIES:
        lines += _head(family.name, family.kind, family.text)
        lines += [f"{family.name}{{{_labels(report)}}} {_number(family.value(report))}" for report in reports]
    name = "nv_inference_request_failure"
    lines += _head(name, "counter", "Requests that ended otherwise, by reason")
    for report in reports:
        for reason in REASONS:
            lines.append(f"{name}{{{_labels(report, reason=reason)}}} {report.counts.failures[reason]}")
    memory = psutil.virtual_memory()
    for name, text, value in (
        ("nv_cpu_utilization", "Use of all cores, 0 to 1", psutil.cpu_percent(None) / 100),
        ("nv_cpu_memory_total_bytes", "Memory of the machine", float(memory.total)),
        ("nv_cpu_memory_used_bytes", "Memory in use", float(memory.total - memory.available)),
    ):
        lines += [*_head(name, "gauge", text), f"{name} {_number(value)}"]
    for name, kind, text, read in _GPU_FAMILIES:
        known = [(gpu.uuid, value) for gpu in gpus if (value := read(gpu)) is not None]
        if known:
            lines += _head(name, kind, text)
            lines += [f'{name}{{gpu_uuid="{escape(uuid)}"}} {_number(value)}' for uuid, value in known]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(report: VersionReport, **more: str) -> str:
    """Return labels in the order of their names, as in Triton."""
    labels = {"model": report.model, "version": report.version, **more}  # letters, digits and '_-.': nothing to escape
    labels |= {f"_{name}": escape(value) for name, value in report.tags.items()}
    return ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6f}"
