"""`python -m forebay_server.bench.gpu [--only SECTION]... --out FOLDER`: measure the CUDA pipeline, by section.

Needs torch, onnx and opencv (for the bundled detector and clip) and a GPU; `--device cpu --dry-run` shows anywhere that
it works. Every cell is written when it is measured, and with `--limit-s` none is begun when the time is over, so an
interrupted run keeps its results. `python -m forebay_server.bench.gpu.page` puts results into docs/benchmarks-gpu.md.
"""

import argparse
import importlib
import importlib.util
import json
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forebay_server.bench.gpu.front_end_targets import write_targets
from forebay_server.bench.gpu.numbers import significant

SECTIONS = {
    "lanes": ("sections_local", 60),
    "served": ("sections_served", 190),
    "cameras": ("sections_served", 100),
    "batching": ("sections_batching", 75),
    "memory": ("sections_memory", 325),
    "decode_memory": ("sections_memory", 345),
    "processes": ("sections_spread", 120),
    "front_ends": ("sections_front_ends", 370),
    "jpeg_cameras": ("sections_jpeg", 120),
    "video_cameras": ("sections_video", 150),
    "priorities": ("sections_priorities", 140),
    "profile": ("sections_served", 35),
    "variants": ("sections_local", 150),
    "gpus": ("sections_spread", 130),
    "engines": ("sections_engines", 120),
}
"""Module of each section, and about how many seconds it takes on an H100."""
OF_SEVERAL_GPUS = ("gpus", "engines")
"""Sections that are run by name only."""


def section_of(name: str) -> Callable[[Any], Iterator[dict[str, Any]]]:
    """Return the function that measures a section."""
    module = importlib.import_module(f"forebay_server.bench.gpu.{SECTIONS[name][0]}")
    function: Callable[[Any], Iterator[dict[str, Any]]] = getattr(module, name)
    return function


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    facts: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    facts |= {"python": platform.python_version(), "cores": os.cpu_count()}
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    facts["cpu"] = models[0] if models else platform.processor()
    if importlib.util.find_spec("torch") is None:
        return facts
    import torch

    facts["torch"] = torch.__version__
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
        facts["cuda"] = torch.version.cuda
    return facts


def measure(name: str, plan: Any, until: float) -> bool:  # noqa: ANN401 - Plan, whose module imports torch
    """Run one section, write its results so far after every cell; return whether it came to its end."""
    if time.perf_counter() >= until:
        print(f"{name}: not begun, the time is over")
        return False
    cells: list[dict[str, Any]] = []
    path = plan.out / f"{name}.json"
    started = time.perf_counter()
    print(f"{name}: about {SECTIONS[name][1]} s on an H100", flush=True)
    try:
        for cell in section_of(name)(plan):
            cells.append(cell)
            path.write_text(json.dumps(significant(cells), indent=1) + "\n")
            print(f"{time.perf_counter() - started:6.1f} s {name}: {short(cell)}", flush=True)
            if time.perf_counter() >= until:
                print(f"{name}: stopped after {len(cells)} cells, the time is over")
                return False
    except Exception:  # noqa: BLE001 - the other sections go on
        traceback.print_exc()
        return False
    return True


LONG = {"samples", "repeats", "functions", "thread_cpu_us_per_row", "mean_stage_ms"}


def short(cell: dict[str, Any]) -> str:
    """Return a cell on one line, numbers rounded, long lists left out."""
    return json.dumps({name: value for name, value in significant(cell, 4).items() if name not in LONG})


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="again for more; default: all of one GPU")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="for programs, traces and other large files; default: OUT/work")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu", "simulated"),
        default="cuda",
        help="simulated: a dry run of front_ends or engines",
    )
    parser.add_argument("--dry-run", action="store_true", help="seconds instead of minutes; no numbers worth reading")
    parser.add_argument("--limit-s", type=float, default=math.inf, help="begin no cell after so many seconds")
    parser.add_argument("--memory-seconds", type=float, default=300.0, help="of load while memory is watched")
    parser.add_argument("--gpus", type=int, default=2, help="to spread over, in sections gpus and engines")
    arguments = parser.parse_args()
    until = time.perf_counter() + arguments.limit_s
    from forebay_server.service.tuning import tune_process

    tune_process()
    from forebay_server.bench.gpu.plan import Plan

    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    work = (arguments.work or out / "work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    is_dry = arguments.dry_run or arguments.device == "simulated"
    if arguments.device == "simulated":
        plan = Plan.simulated(out, work)
    else:
        plan = Plan.dry(arguments.device, out, work) if is_dry else Plan(arguments.device, out, work)
    if not is_dry:
        plan = replace(plan, memory_seconds=arguments.memory_seconds)
    plan = replace(plan, gpus=arguments.gpus if arguments.device == "cuda" else 1)
    (out / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    names = arguments.only or [name for name in SECTIONS if name not in OF_SEVERAL_GPUS]
    outcomes = [measure(name, plan, until) for name in names]
    if "front_ends" in names:
        print("\n".join(write_targets(out)))
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
