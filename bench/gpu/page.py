"""`python -m forebay_server.bench.gpu.page [--add FOLDER]`: results into the raw file and docs/benchmarks-gpu.md.

Prose is written by hand; the text between `<!-- table NAME -->` and `<!-- end -->` is written from the raw file;
a test compares. Sections that FOLDER does not have stay as they were measured before; a table says when and where.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from forebay_server.bench.gpu import tables
from forebay_server.bench.gpu.numbers import significant

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks-gpu.md"
RAW = ROOT / "docs" / "benchmarks-gpu" / "h100.json"
TABLES = {
    "lanes": ("lanes", tables.lanes),
    "variants": ("variants", tables.variants),
    "served": ("served", tables.served),
    "threads": ("served", tables.threads),
    "processes": ("processes", tables.processes),
    "front_ends": ("front_ends", tables.front_ends),
    "cameras": ("cameras", tables.cameras),
    "jpeg cameras": ("jpeg_cameras", tables.jpeg_cameras),
    "video cameras": ("video_cameras", tables.video_cameras),
    "priorities": ("priorities", tables.priorities),
    "batching": ("batching", tables.batching),
    "memory": ("memory", tables.memory),
    "memory of decoders": ("decode_memory", tables.memory),
    "functions": ("profile", tables.functions),
    "gpus": ("gpus", tables.gpus),
    "processes on several GPUs": ("gpus", tables.processes),
    "test_gpu": ("test_gpu", tables.test_gpu),
}
"""Section and function of every table."""
SECTIONS = tuple(dict.fromkeys(section for section, _ in TABLES.values()))
_PLACE = re.compile(r"<!-- table (?P<name>[\w ]+) -->\n.*?<!-- end -->", re.DOTALL)


def add(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `raw` with the sections that a run left in `folder`, and where each was measured."""
    raw = dict(raw)
    machines = dict(raw.get("machines", {}))
    machine = json.loads((folder / "machine.json").read_text())
    for name in SECTIONS:
        path = folder / f"{name}.json"
        if path.is_file():
            raw[name], machines[name] = significant(json.loads(path.read_text())), machine
    return raw | {"machines": machines}


def provenance(raw: dict[str, Any]) -> list[str]:
    """Return when and where each section was measured."""
    rows = []
    for name in SECTIONS:
        if name in raw:
            machine = raw["machines"][name]
            place = f"{machine.get('gpu', 'no GPU')}, torch {machine['torch']}, {machine['cores']} cores"
            rows.append([name, machine["date"], place, str(len(raw[name]))])
    return tables.table(["section", "date", "machine", "cells"], rows)


def render(page: str, raw: dict[str, Any]) -> str:
    """Return the page with every table written anew. Raises KeyError for the name of no table."""

    def write(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "sections":
            lines = provenance(raw)
        else:
            section, function = TABLES[name]
            lines = function(raw.get(section, []))
        return "\n".join([f"<!-- table {name} -->", *lines, "<!-- end -->"])

    return _PLACE.sub(write, page)


def main() -> int:
    """Parse arguments, merge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--add", type=Path, action="append", default=[], metavar="FOLDER", help="of a run; again for more"
    )
    parser.add_argument("--raw", type=Path, default=RAW)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    raw: dict[str, Any] = json.loads(arguments.raw.read_text())
    for folder in arguments.add:
        raw = add(raw, folder)
    if arguments.add:
        arguments.raw.write_text(json.dumps(raw, indent=1) + "\n")
    arguments.page.write_text(render(arguments.page.read_text(), raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
