"""The tables of docs/benchmarks-gpu.md from the raw numbers: data in, Markdown lines out, nothing else.

A cell that was measured once, without repeats, is shown without a spread.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Cell = dict[str, Any]
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
    heads = ["network", "rows", "alone, rows/s", "pipeline, rows/s", "share", "p50, ms", "p99, ms", "compute idle",
             "overlap", "host CPU a batch, ms"]  # fmt: skip
    return table(
        heads,
        (
            [
                cell["network"],
                str(cell["rows"]),
                count(cell["alone"]["rows_per_s"]),
                count(cell["lane"]["rows_per_s"]),
                f"{cell['share']:.3f}",
                f"{cell['lane']['p50_ms']:.2f}",
                f"{cell['lane']['p99_ms']:.2f}",
                percent(cell["lane"]["idle_share"]),
                percent(cell["lane"]["overlap_share"]),
                f"{cell['lane']['host_cpu_ms_per_batch']:.2f}",
            ]
            for cell in cells
        ),
    )


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
    heads = ["network", "max batch", "way", "in flight", "rows/s", "p50, ms", "p99, ms", "server CPU a row, ms",
             "mean batch", "compute idle", "overlap"]  # fmt: skip
    rows = []
    for cell in cells:
        device, cpu = cell["device"], cell.get("server_cpu_ms_per_row", cell.get("server_cpu_ms_per_frame"))
        rows.append(
            [
                cell["network"],
                str(cell["rows"]),
                cell["way"].replace("requests of whole batches", "batches"),
                str(cell["in_flight"]),
                spread(cell, "rows_per_s", count),
                spread(cell, "p50_ms", ms),
                spread(cell, "p99_ms", ms),
                "-" if cpu is None else f"{cpu:.2f}",
                f"{device['mean_rows']:.1f}" if "mean_rows" in device else "-",
                percent(device.get("idle_share")),
                percent(device.get("overlap_share")),
            ]
        )
    return table(heads, rows)


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
    heads = ["processes", "GPUs", "load", "rows/s", "in time", "p50, ms", "p99, ms", "server CPU a row, ms",
             "GPU memory, MiB"]  # fmt: skip
    rows = []
    for cell in cells:
        if "processes" not in cell:
            continue
        load = f"{cell['cameras']} cameras" if cell["way"] == "cameras" else f"frames, {cell['in_flight']} in flight"
        rows.append(
            [
                str(cell["processes"]),
                str(cell["gpus"]),
                load,
                spread(cell, "rows_per_s", count),
                percent(cell.get("in_time_share")),
                spread(cell, "p50_ms", ms),
                spread(cell, "p99_ms", ms),
                f"{cell['server_cpu_ms_per_row']:.2f}",
                count(cell["gpu_mib"]),
            ]
        )
    return table(heads, rows)


def gpus(cells: Sequence[Cell]) -> list[str]:
    """What one process moves to several GPUs: lanes without gRPC, whole batches with it."""
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
    heads = ["encoding", "cameras", "delivery", "results", "in time", "OK", "p50, ms", "p99, ms", "mean batch",
             "decode, ms", "deliver, ms", "send lag p99, ms"]  # fmt: skip
    rows = []
    for cell in cells:
        stages, statuses = cell["mean_stage_ms"], cell["statuses"]
        rows.append(
            [
                cell["encoding"],
                str(cell["cameras"]),
                cell.get("delivery", "every").upper(),
                cell.get("results", "tensors"),
                percent(cell["in_time_share"]),
                percent(statuses.get("OK", 0) / max(1, sum(statuses.values()))),
                ms(cell["p50_ms"]),
                ms(cell["p99_ms"]),
                f"{cell['mean_batch']:.2f}",
                f"{stages.get('decode', 0.0):.2f}",
                f"{stages.get('deliver', 0.0):.2f}",
                ms(cell["send_lag_p99_ms"]),
            ]
        )
    return table(heads, rows)


def priorities(cells: Sequence[Cell]) -> list[str]:
    """Cameras of one model beside a busy one."""
    rows = []
    for cell in cells:
        cameras, bulk = cell["of_cameras"], cell.get("of_bulk")
        rows.append(
            [
                cell["way"],
                cell["arrangement"],
                percent(cameras.get("in_time_share")),
                spread(cameras, "p50_ms", ms),
                spread(cameras, "p99_ms", ms),
                "-" if bulk is None else spread(bulk, "rows_per_s", count),
                "-" if bulk is None else spread(bulk, "p99_ms", ms),
            ]
        )
    heads = ["way", "priorities", "cameras in time", "p50, ms", "p99, ms", "bulk, rows/s", "bulk p99, ms"]
    return table(heads, rows)


def batching(cells: Sequence[Cell]) -> list[str]:
    """The batching workloads in virtual and in real time."""
    heads = ["clock", "rows a request", "workload", "policy", "p50, ms", "p99, ms", "in time", "mean batch",
             "timers late p99, ms"]  # fmt: skip
    rows = []
    for cell in cells:
        if "workload" not in cell:
            continue
        clock = "real" if cell["is_real"] else "virtual"
        rows.append(
            [
                f"{clock}, void" if cell.get("is_void") else clock,
                str(cell.get("rows_per_request", 1)),
                f"{cell['workload']} {cell['load']:g}",
                cell["policy"],
                ms(cell["p50_ms"]),
                ms(cell["p99_ms"]),
                percent(cell["in_time_share"]),
                f"{cell['mean_batch']:.1f}",
                f"{cell['timer_lag_p99_ms']:.2f}" if "timer_lag_p99_ms" in cell else "-",
            ]
        )
    return table(heads, rows)


def memory(cells: Sequence[Cell]) -> list[str]:
    """What was held at the beginning and the end, its slope, and what it is made of."""
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
    """The outcome of `make test-gpu`, and what its tests measured."""
    outcomes = [row["outcome"] for row in rows]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    measured = ([row["test"], row["measured"]] for row in rows if row["measured"])
    return [f"{len(rows)} rows of its table: {counts}.", "", *table(["test", "measured"], measured)]
