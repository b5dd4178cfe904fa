"""`python -m bench.gpu [SECTION ...] --out FOLDER`: measure the CUDA pipeline and write one JSON file per section.

Needs torch, onnx (for the bundled detector) and a GPU; `--device cpu --dry-run` shows on any machine that it works.
"""

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

SECTIONS = ("lanes", "variants", "served", "cameras", "batching", "memory")


def section_of(name: str) -> Callable[[Any], Iterator[dict[str, Any]]]:
    """Return the function that measures a section."""
    from bench.gpu import sections_batching, sections_local, sections_served

    for module in (sections_local, sections_served, sections_batching):
        if hasattr(module, name):
            function: Callable[[Any], Iterator[dict[str, Any]]] = getattr(module, name)
            return function
    raise ValueError(f"no section {name!r}")


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    import torch

    facts = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    facts["cpu"] = models[0] if models else platform.processor()
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
        facts["cuda"] = torch.version.cuda
    return facts


def measure(name: str, plan: Any) -> bool:  # noqa: ANN401 - Plan, whose module imports torch
    """Run one section, write what it gave so far after every cell; say whether it ended well."""
    cells: list[dict[str, Any]] = []
    path = plan.out / f"{name}.json"
    started = time.perf_counter()
    try:
        for cell in section_of(name)(plan):
            cells.append(cell)
            path.write_text(json.dumps(cells, indent=1) + "\n")
            print(f"{time.perf_counter() - started:6.1f} s {name}: {short(cell)}")
    except Exception:  # noqa: BLE001 - the other sections go on
        traceback.print_exc()
        return False
    return True


def short(cell: dict[str, Any]) -> str:
    """Return a cell on one line, numbers rounded, long lists left out."""
    rounded = json.loads(json.dumps(cell), parse_float=lambda text: float(f"{float(text):.4g}"))
    return json.dumps({name: value for name, value in rounded.items() if name != "samples"})


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="seconds instead of minutes; no numbers worth reading")
    parser.add_argument("--memory-seconds", type=float, default=150.0, help="of load while memory is watched")
    arguments = parser.parse_args()
    from service.tuning import tune_process

    tune_process()
    from bench.gpu.plan import Plan

    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan.dry(arguments.device, out) if arguments.dry_run else Plan(arguments.device, out)
    plan = plan if arguments.dry_run else replace(plan, memory_seconds=arguments.memory_seconds)
    (out / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    outcomes = [measure(name, plan) for name in arguments.sections or SECTIONS]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
