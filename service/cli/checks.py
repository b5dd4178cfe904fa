"""The machine checks of `forebay doctor`: one finding for each question, without the settings.

A check reads facts, decides, and proposes a remedy; it changes nothing. It reads facts below `/proc` and `/sys` through
a root folder, so that tests can present other machines.
"""

import importlib.metadata
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "warning", "fault"]
IDLE_BYTES = 200 << 20  # the budget of docs/benchmarks.md for an idle server
COMFORT_BYTES = 600 << 20  # with large frames in flight and a few models
FILES_BESIDE_STREAMS = 64  # libraries, logs, the loop, sockets in the process of opening
LEAST_FILES = 256
FAST_CLOCKS = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "pvclock", "xen"}
TESTED_PYTHON = ((3, 11), (3, 14))
PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime", "opencv-python-headless", "simplejpeg", "pydantic-settings")
TESTED_GRPC = "1.85.1"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question.

    Attributes:
        check: short name, stable.
        level: ok; note: worth knowing; warning: works, but worse than it could; fault: `forebay serve` fails.
        detail: the observed fact.
        remedy: the proposed action; empty if none is needed.
    """

    check: str
    level: Level
    detail: str
    remedy: str = ""


def machine_findings(root: Path, max_streams: int) -> list[Finding]:
    """Return the findings that do not depend on models and addresses.

    Args:
        root: `/`, or a folder that replaces it in tests.
        max_streams: of the settings.
    """
    return [_python(), _packages(), _cores(root), _memory(root), _files(max_streams), _clock(root), _governor(root)]


def _python() -> Finding:
    low, high = TESTED_PYTHON
    version = ".".join(map(str, sys.version_info[:3]))
    if low <= sys.version_info[:2] <= high:
        return Finding("python", "ok", version)
    tested = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Finding("python", "warning", f"{version} is not among those tested", f"use Python {tested}")


def _packages() -> Finding:
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("packages", "fault", f"not installed: {', '.join(missing)}", "pip install " + " ".join(missing))
    detail = ", ".join(f"{name} {version}" for name, version in versions.items())
    if versions["grpcio"] != TESTED_GRPC:
        return Finding(
            "packages", "warning", detail, f"pip install grpcio=={TESTED_GRPC}, the release that was measured"
        )
    return Finding("packages", "ok", detail)


def _cores(root: Path) -> Finding:
    cores = len(os.sched_getaffinity(0))
    quota = _cpu_quota(root)
    if quota is not None and quota < 1:
        return Finding(
            "cores", "warning", f"{cores} cores, but only {quota:g} of one may be used", "give the container a core"
        )
    if quota is not None and quota < cores:
        return Finding(
            "cores",
            "note",
            f"{cores} cores, {quota:g} of which may be used",
            f"set worker_threads to {max(1, int(quota))}",
        )
    return Finding("cores", "ok", f"{cores}")


def _cpu_quota(root: Path) -> float | None:
    """Return how many cores the control group may use, or None for no limit."""
    words = _read(root / "sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        return int(words[0]) / int(words[1])
    quota, period = (_read(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _memory(root: Path) -> Finding:
    limits = {"the machine": _meminfo(root)}
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / "sys/fs/cgroup" / name).strip()
        if text.isdigit():
            limits["the container"] = int(text)
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft_limit != resource.RLIM_INFINITY:
        limits["ulimit -v"] = soft_limit
    known = {whose: size for whose, size in limits.items() if size}
    if not known:
        return Finding("memory", "note", "unknown")
    whose = min(known, key=lambda name: known[name])
    detail = f"{known[whose] >> 20} MB, the limit of {whose}"
    if known[whose] < IDLE_BYTES:
        return Finding("memory", "fault", detail, f"allow at least {IDLE_BYTES >> 20} MB; an idle server takes that")
    if known[whose] < COMFORT_BYTES:
        return Finding("memory", "warning", detail, f"allow {COMFORT_BYTES >> 20} MB, or lower permits and max_window")
    return Finding("memory", "ok", detail)


def _meminfo(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 0


def _files(max_streams: int) -> Finding:
    soft_limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_streams + FILES_BESIDE_STREAMS  # every stream may come on its own connection
    if soft_limit == resource.RLIM_INFINITY or soft_limit >= needed:
        return Finding("open files", "ok", f"{soft_limit}")
    remedy = f"ulimit -n {needed}" if hard >= needed else f"raise the hard limit ({hard}) to {needed}"
    level: Level = "fault" if soft_limit < LEAST_FILES else "warning"
    return Finding("open files", level, f"{soft_limit} may be open; {max_streams} streams may need {needed}", remedy)


def _clock(root: Path) -> Finding:
    source = _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
    if not source:
        return Finding("clock", "note", "unknown")
    if source in FAST_CLOCKS:
        return Finding("clock", "ok", source)
    return Finding(
        "clock", "warning", f"{source} is slow to read", "boot with clocksource=tsc if the CPU has a stable one"
    )


def _governor(root: Path) -> Finding:
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor == "powersave":
        return Finding("cpu governor", "warning", "powersave adds latency", "cpupower frequency-set -g performance")
    return Finding("cpu governor", "ok", governor or "left to the host")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
