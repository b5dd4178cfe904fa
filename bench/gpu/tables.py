"""The tables of docs/benchmarks-gpu.md from the raw numbers: data in, Markdown lines out, nothing else.

A cell that was measured once, without repeats, is shown without a spread.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Cell = dict[str, Any]
Columns = Mapping[str, Callable[[Cell], str]]
"""The columns of a table with one line a cell: the heading, and the part of the cell below it."""
NOT_RUN = "not run"
THREADS_SHOWN = 8
FUNCTIONS_SHOWN = 12
KNOBS: tuple[tuple[str, Cell], ...] = (
    ("depth 1", {"depth": 1}),
    ("depth 2", {}),
    ("depth 3", {"depth": 3}),
    ("pageable, depth 1", {"is_pinned": False, "depth": 1}),
    ("pageable, depth 2", {"is_pinned": False}),
    ("no graphs", {"has_graphs": False}),
    ("2 instances", {"instances": 2}),
    ("4 instances", {"instances": 4}),
)
_USUAL = {"depth": 2, "is_pinned": True, "has_graphs": True, "instances": 1}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, or one line that says that there is none."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return [f"({NOT_RUN})"]
    return [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *lines]


def lines_of(cells: Iterable[Cell], columns: Columns) -> list[str]:
    """Return a Markdown table with one line a cell."""
    return table(list(columns), ([form(cell) for form in columns.values()] for cell in cells))


def count(value: float) -> str:
    """Rows a second, bytes: no decimals."""
    return f"{value:,.0f}"


def ms(value: float | None) -> str:
    """Milliseconds as latencies over gRPC are shown; none where nothing was answered."""
    return "-" if value is None else f"{value:,.1f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def spread(cell: Cell, name: str, form: Callable[[float], str]) -> str:
    """Return the median, and the least and the most of the repeats where there are any."""
    values = [repeat[name] for repeat in cell.get("repeats", []) if name in repeat]
    if len(values) < 2:
        return form(cell[name]) if name in cell else "-"
    return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})"


def lanes(cells: Sequence[Cell]) -> list[str]:
    """Engine alone and behind the pipeline."""
    columns: Columns = {
        "network": lambda cell: cell["network"],
        "rows": lambda cell: str(cell["rows"]),
        "alone, rows/s": lambda cell: count(cell["alone"]["rows_per_s"]),
        "pipeline, rows/s": lambda cell: count(cell["lane"]["rows_per_s"]),
        "share": lambda cell: f"{cell['share']:.3f}",
        "p50, ms": lambda cell: f"{cell['lane']['p50_ms']:.2f}",
        "p99, ms": lambda cell: f"{cell['lane']['p99_ms']:.2f}",
        "compute idle": lambda cell: percent(cell["lane"]["idle_share"]),
        "overlap": lambda cell: percent(cell["lane"]["overlap_share"]),
        "host CPU a batch, ms": lambda cell: f"{cell['lane']['host_cpu_ms_per_batch']:.2f}",
    }
    return lines_of(cells, columns)


def variants(cells: Sequence[Cell]) -> list[str]:
    """One line a network and size, one column a knob."""
    measured = [cell for cell in cells if "lane" in cell]
    rows = []
    for network, size in dict.fromkeys((cell["network"], cell["rows"]) for cell in measured):
        row = [f"{network}, {size}"]
        for _, change in KNOBS:
            wanted = {"network": network, "rows": size, **_USUAL, **change}
            found = next((c["lane"] for c in measured if wanted.items() <= c.items()), None)
            row.append(NOT_RUN if found is None else f"{count(found['rows_per_s'])} ({ms(found['p50_ms'])})")
        rows.append(row)
    return table(["network, rows", *(name for name, _ in KNOBS)], rows)


def served(cells: Sequence[Cell]) -> list[str]:
    """Closed loop over gRPC."""
    columns: Columns = {
        "network": lambda cell: cell["network"],
        "max batch": lambda cell: str(cell["rows"]),
        "way": lambda cell: cell["way"].replace("requests of whole batches", "batches"),
        "in flight": lambda cell: str(cell["in_flight"]),
        "rows/s": lambda cell: spread(cell, "rows_per_s", count),
        "p50, ms": lambda cell: spread(cell, "p50_ms", ms),
        "p99, ms": lambda cell: spread(cell, "p99_ms", ms),
        "server CPU a row, ms": _server_cpu_ms,
        "mean batch": lambda cell: f"{cell['device']['mean_rows']:.1f}" if "mean_rows" in cell["device"] else "-",
        "compute idle": lambda cell: percent(cell["device"].get("idle_share")),
        "overlap": lambda cell: percent(cell["device"].get("overlap_share")),
    }
    return lines_of(cells, columns)


def _server_cpu_ms(cell: Cell) -> str:
    cpu_ms = cell.get("server_cpu_ms_per_row", cell.get("server_cpu_ms_per_frame"))
    return "-" if cpu_ms is None else f"{cpu_ms:.2f}"


def threads(cells: Sequence[Cell]) -> list[str]:
    """CPU a row by kind of thread, of the served cells at the largest batch."""
    largest = max((cell["rows"] for cell in cells), default=0)
    chosen = [cell for cell in cells if cell["rows"] == largest and "thread_cpu_us_per_row" in cell]
    rows = []
    for cell in chosen:
        busiest = sorted(cell["thread_cpu_us_per_row"].items(), key=lambda each: -each[1])[:THREADS_SHOWN]
        shown = ", ".join(f"{name} {used_us:,.0f}" for name, used_us in busiest)
        rows.append([cell["network"], cell["way"], shown])
    return table(["network", "way", "CPU a row by thread, us"], rows)


def functions(cells: Sequence[Cell]) -> list[str]:
    """Which functions held the interpreter."""
    rows = [
        [cell["results"], found["thread"], f"`{found['function']}`", percent(found["share"])]
        for cell in cells
        for found in cell.get("functions", [])[:FUNCTIONS_SHOWN]
    ]
    return table(["results", "thread", "function", "share of samples"], rows)


def processes(cells: Sequence[Cell]) -> list[str]:
    """Several server processes, in a closed loop and under cameras."""
    columns: Columns = {
        "processes": lambda cell: str(cell["processes"]),
        "GPUs": lambda cell: str(cell["gpus"]),
        "load": lambda cell: (
            f"{cell['cameras']} cameras" if cell["way"] == "cameras" else f"frames, {cell['in_flight']} in flight"
        ),
        "rows/s": lambda cell: spread(cell, "rows_per_s", count),
        "in time": lambda cell: percent(cell.get("in_time_share")),
        "p50, ms": lambda cell: spread(cell, "p50_ms", ms),
        "p99, ms": lambda cell: spread(cell, "p99_ms", ms),
        "server CPU a row, ms": _server_cpu_ms,
        "GPU memory, MiB": lambda cell: count(cell["gpu_mib"]),
    }
    return lines_of((cell for cell in cells if "processes" in cell), columns)


def front_ends(cells: Sequence[Cell]) -> list[str]:
    """Front-end processes before one engine process, beside one process for all."""
    columns: Columns = {
        "front-end processes": lambda cell: str(cell.get("front_ends", "-")),
        "load": lambda cell: (
            f"{cell['cameras']} {cell['way']}"
            if "cameras" in cell
            else f"{cell['way']}, {cell['model']}" + (f", {cell['in_flight']} in flight" if "in_flight" in cell else "")
        ),
        "rows/s": lambda cell: count(cell["rows_per_s"]),
        "in time": lambda cell: percent(cell.get("in_time_share")),
        "p50, ms": lambda cell: ms(cell["p50_ms"]) if "p50_ms" in cell else "-",
        "p99, ms": lambda cell: ms(cell["p99_ms"]) if "p99_ms" in cell else "-",
        "rows a batch": lambda cell: f"{cell['mean_batch']:.1f}" if cell.get("mean_batch") else "-",
        "server CPU a row, ms": lambda cell: (
            f"{cell['server_cpu_ms_per_row']:.2f}" if "server_cpu_ms_per_row" in cell else "-"
        ),
    }
    return lines_of([cell for cell in cells if cell["way"] != "start"], columns)


def gpus(cells: Sequence[Cell]) -> list[str]:
    """The rate of one process with several GPUs: lanes without gRPC, whole batches with it."""
    rows = []
    for cell in cells:
        if "lane" in cell:
            lane = cell["lane"]
            rows.append([f"{cell['way']}, GPUs: {cell['gpus']}", count(lane["rows_per_s"]), f"{lane['p50_ms']:.2f}"])
        elif "model" in cell:
            rows.append([f"{cell['way']}, {cell['model']}", spread(cell, "rows_per_s", count), ms(cell["p50_ms"])])
    return table(["way", "rows/s", "p50, ms"], rows)


def cameras(cells: Sequence[Cell]) -> list[str]:
    """Cameras in an open loop."""
    columns: Columns = {
        "encoding": lambda cell: cell["encoding"],
        "cameras": lambda cell: str(cell["cameras"]),
        "delivery": lambda cell: cell.get("delivery", "every").upper(),
        "results": lambda cell: cell.get("results", "tensors"),
        "in time": lambda cell: percent(cell["in_time_share"]),
        "OK": lambda cell: percent(cell["statuses"].get("OK", 0) / max(1, sum(cell["statuses"].values()))),
        "p50, ms": lambda cell: ms(cell["p50_ms"]),
        "p99, ms": lambda cell: ms(cell["p99_ms"]),
        "mean batch": lambda cell: f"{cell['mean_batch']:.2f}",
        "decode, ms": lambda cell: f"{cell['mean_stage_ms'].get('decode', 0.0):.2f}",
        "deliver, ms": lambda cell: f"{cell['mean_stage_ms'].get('deliver', 0.0):.2f}",
        "send lag p99, ms": lambda cell: ms(cell["send_lag_p99_ms"]),
    }
    return lines_of(cells, columns)


def jpeg_cameras(cells: Sequence[Cell]) -> list[str]:
    """JPEG cameras, by who decodes."""
    return _by_decoder(cells)


def video_cameras(cells: Sequence[Cell]) -> list[str]:
    """H.264 cameras, by who decodes and before how many front-end processes."""
    before: Columns = {
        "run": lambda cell: cell.get("run", "-"),
        "front-end processes, workers of each": lambda cell: f"{cell['front_ends']}, {cell.get('workers', '-')}",
    }
    return _by_decoder(cells, before)


def _by_decoder(cells: Sequence[Cell], more: Columns | None = None) -> list[str]:
    """Cameras whose frames are decoded by the CPU or the GPU."""
    columns: Columns = {
        "decoded by": lambda cell: str({"cpu": "CPU", "gpu": "GPU", "auto": "GPU"}.get(cell["decode"], cell["decode"])),
        **(more or {}),
        "cameras": lambda cell: str(cell["cameras"]),
        "frames/s": lambda cell: count(cell["rows_per_s"]),
        "in time": lambda cell: percent(cell["in_time_share"]),
        "p50, ms": lambda cell: ms(cell["p50_ms"]),
        "p99, ms": lambda cell: ms(cell["p99_ms"]),
        "mean batch": lambda cell: f"{cell['mean_batch']:.1f}",
        "server CPU a frame, ms": _server_cpu_ms,
        "of the engine process": lambda cell: (
            f"{cell['engine_cpu_ms_per_row']:.2f}" if "engine_cpu_ms_per_row" in cell else "-"
        ),
        "GPU memory before, after, MiB": lambda cell: ", ".join(
            count(cell[when]["gpu_mib"]) for when in ("before", "after") if "gpu_mib" in cell.get(when, {})
        ),
    }
    return lines_of(cells, columns)


def priorities(cells: Sequence[Cell]) -> list[str]:
    """Cameras of one model beside a busy one."""
    columns: Columns = {
        "way": lambda cell: cell["way"],
        "priorities": lambda cell: cell["arrangement"],
        "cameras in time": lambda cell: percent(cell["of_cameras"].get("in_time_share")),
        "p50, ms": lambda cell: spread(cell["of_cameras"], "p50_ms", ms),
        "p99, ms": lambda cell: spread(cell["of_cameras"], "p99_ms", ms),
        "bulk, rows/s": lambda cell: spread(cell.get("of_bulk") or {}, "rows_per_s", count),
        "bulk p99, ms": lambda cell: spread(cell.get("of_bulk") or {}, "p99_ms", ms),
    }
    return lines_of(cells, columns)


def batching(cells: Sequence[Cell]) -> list[str]:
    """The batching workloads in virtual and in real time."""
    columns: Columns = {
        "clock": lambda cell: ("real" if cell["is_real"] else "virtual") + (", void" if cell.get("is_void") else ""),
        "rows a request": lambda cell: str(cell.get("rows_per_request", 1)),
        "workload": lambda cell: f"{cell['workload']} {cell['load']:g}",
        "policy": lambda cell: cell["policy"],
        "p50, ms": lambda cell: ms(cell["p50_ms"]),
        "p99, ms": lambda cell: ms(cell["p99_ms"]),
        "in time": lambda cell: percent(cell["in_time_share"]),
        "mean batch": lambda cell: f"{cell['mean_batch']:.1f}",
        "timers late p99, ms": lambda cell: f"{cell['timer_lag_p99_ms']:.2f}" if "timer_lag_p99_ms" in cell else "-",
    }
    return lines_of((cell for cell in cells if "workload" in cell), columns)


def memory(cells: Sequence[Cell]) -> list[str]:
    """Memory at the beginning and the end, its slope, and its parts."""
    lines = []
    for cell in cells:
        rows, slopes = [], cell.get("slope_per_hour", {})
        for name, label in (("rss_mib", "host, resident"), ("gpu_mib", "GPU, all processes")):
            values = [sample[name] for sample in cell["samples"]]
            found = slopes.get(name)
            slope = "-" if found is None else f"{found['per_hour']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
            rows.append([label, count(values[0]), count(values[len(values) // 2]), count(values[-1]), slope])
        heads = ["memory", "first sample, MiB", "half way, MiB", "last, MiB", "slope, MiB an hour (95 %)"]
        lines += table(heads, rows)
        if "after" in cell:
            kinds = dict.fromkeys([*cell["before"]["resident"], *cell["after"]["resident"]])
            held = ((cell["before"]["resident"].get(k, 0.0), cell["after"]["resident"].get(k, 0.0)) for k in kinds)
            pairs = zip(kinds, held, strict=True)
            parts = ([kind, count(before), count(after)] for kind, (before, after) in pairs)
            lines += ["", *table(["resident, by mapping", "ready, MiB", "after the load, MiB"], parts)]
    return lines or [f"({NOT_RUN})"]


def test_gpu(rows: Sequence[Cell]) -> list[str]:
    """The outcome of `make test-gpu`, and the measurements of its tests."""
    outcomes = [row["outcome"] for row in rows]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    measured = ([row["test"], row["measured"]] for row in rows if row["measured"])
    return [f"{len(rows)} rows of its table: {counts}.", "", *table(["test", "measured"], measured)]
