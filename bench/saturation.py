"""A GPU at saturation: quoted from the last measurement on one, since `make bench` has none.

docs/benchmarks-gpu.md says how it was measured and shows the rest; `python -m forebay_server.bench.gpu` measures
anew, on a GPU.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forebay_server.bench.rows import Row, Spread

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "benchmarks-gpu" / "h100.json"
LEAST_ROWS = 8  # smaller batches are shorter than the host's time for a batch: the budget is about saturation
BUDGET_IDLE, BUDGET_HIDDEN, BUDGET_SHARE = 0.05, 0.90, 0.95


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Quote; nothing is measured, so that nothing is judged by `--check`."""
    if is_quick:
        return
    document: dict[str, Any] = json.loads(MEASURED.read_text())
    lanes = [lane for lane in document["lanes"] if lane["rows"] >= LEAST_ROWS and lane["depth"] == 2]
    cells = ", ".join(f"{lane['network']} at {lane['rows']}" for lane in lanes)
    machine = document["machines"]["lanes"]
    note = f"quoted from docs/benchmarks-gpu.md: {machine['gpu']}, {machine['date']}; {cells} rows a batch"
    idle = [lane["lane"]["idle_share"] for lane in lanes]
    hidden = [lane["lane"]["overlap_share"] for lane in lanes]
    share = [lane["share"] for lane in lanes]
    yield Row("GPU: compute stream idle, share of the time", Spread.of(idle), "", BUDGET_IDLE, note=note)
    yield Row(
        "GPU: h2d and d2h hidden behind compute, share of copying",
        Spread.of(hidden),
        "",
        BUDGET_HIDDEN,
        is_higher_better=True,
        note="the same batches; 'hidden' is taken to mean at least 0.9",
    )
    what = "GPU: pipeline over the engine alone, rows per second"
    yield Row(what, Spread.of(share), "", BUDGET_SHARE, is_higher_better=True, note="the same batches")
