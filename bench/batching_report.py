"""The table and the plots of `forebay bench batching`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forebay_server.bench.batching_bars import BarCheck
from forebay_server.bench.batching_metrics import Cell
from forebay_server.bench.real_check import TOLERANCE

PLOTTED = ("poisson", "cameras")
LARGEST_P99_MS = 60.0
STYLES = {
    "jit_edf": ("#0b6e4f", "o", "Forebay (jit_edf)"),
    "eager": ("#d1495b", "s", "eager"),
    "window": ("#edae49", "^", "window 5 ms"),
    "preferred": ("#6c757d", "v", "preferred sizes, 5 ms"),
}
BOUND_COLOUR = "#222222"


def heading() -> str:
    """Return the first line of the table."""
    return (
        f"{'workload':15s}{'load':>5s} {'policy':10s}{'p50 ms':>8s}{'p99 ms':>9s}{'p99.9':>9s}{'bound':>8s}"
        f"{'in time/s':>11s}{'bound':>8s}{'in time':>9s}{'late':>8s}{'shed':>8s}{'batch':>7s}{'jain':>7s}{'worst':>7s}"
    )


def line(cell: Cell, extra: Mapping[str, Any]) -> str:
    """Return a cell as one line of the table."""
    text = (
        f"{cell.workload:15s}{cell.load:5.2f} {cell.policy:10s}{_ms(cell.p50_ms):>8s}{_ms(cell.p99_ms):>9s}"
        f"{_ms(cell.p999_ms):>9s}{_ms(cell.bound_p99_ms):>8s}{cell.goodput_per_s:11.1f}{cell.bound_goodput_per_s:8.0f}"
        f"{cell.in_time_share:9.2%}{cell.late_share:8.2%}{cell.shed_share:8.2%}{cell.mean_batch:7.1f}{cell.jain:7.3f}"
        f"{cell.worst_stream_share:7.3f}"
    )
    if len(cell.in_time_share_by_class) > 1:
        text += "  " + ", ".join(f"{name} {share:.2%}" for name, share in cell.in_time_share_by_class.items())
    if "timer_lag_p99_ms" in extra:
        text += "  VOID: " if extra["is_void"] else "  valid: "
        text += f"timers {extra['timer_lag_p99_ms']:.2f} ms late; of virtual time: "
        text += ", ".join(f"{name} {deviation:+.1%}" for name, deviation in extra["deviation_from_virtual"].items())
    return text


def real_summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Return one line about the cells with real threads."""
    valid = [cell for cell in results if not cell["is_void"]]
    within = sum(cell["is_within_tolerance"] for cell in valid)
    return (
        f"real threads: {within} of {len(valid)} valid cells are within {TOLERANCE:.0%} of virtual time; "
        f"{len(results) - len(valid)} void"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def verdict_lines(verdicts: Sequence[BarCheck], decide: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what the bars say."""
    if decide is not None:
        yield (
            f"\ndecide(): {decide['mean_us']:.1f} us of CPU a call over {decide['calls']} calls; "
            f"{decide['few_pending_us']:.1f} us at 50 pending, {decide['many_pending_us']:.1f} us at 200 "
            f"({decide['growth']:.1f}x)"
        )
    met = sum(verdict.is_met for verdict in verdicts)
    if verdicts:
        yield f"{met} of {len(verdicts)} bars met"
    for verdict in verdicts:
        if not verdict.is_met:
            bar = verdict.bar
            yield f"  missed: {bar.workload} {bar.load:g} {bar.field} is {verdict.value}, should be {bar.limit}"


def draw(results: Sequence[Mapping[str, Any]], directory: Path) -> list[Path]:
    """Draw p99 and goodput against load, a panel per workload; return the files.

    Raises:
        ModuleNotFoundError: matplotlib, a development dependency, is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "forebay"
    directory.mkdir(parents=True, exist_ok=True)
    return [
        _draw(results, directory / "batching_p99.svg", "p99_ms", "bound_p99_ms", "p99 of executed frames, ms"),
        _draw(
            results, directory / "batching_goodput.svg", "goodput_per_s", "bound_goodput_per_s", "in time per second"
        ),
    ]


def _draw(results: Sequence[Mapping[str, Any]], path: Path, name: str, bound: str, label: str) -> Path:
    from matplotlib.figure import Figure

    kinds = [kind for kind in PLOTTED if any(cell["workload"] == kind for cell in results)]
    figure = Figure(figsize=(5.2 * max(1, len(kinds)), 3.8), layout="constrained")
    for column, kind in enumerate(kinds, start=1):
        axes = figure.add_subplot(1, len(kinds), column)
        for policy, (colour, marker, title) in STYLES.items():
            points = _points(results, kind, policy, name)
            axes.plot(*zip(*points, strict=True) if points else ((), ()), color=colour, marker=marker, label=title)
        bounds = _points(results, kind, "jit_edf", bound)
        axes.plot(*zip(*bounds, strict=True) if bounds else ((), ()), color=BOUND_COLOUR, linestyle=":", label="bound")
        axes.set_title(f"{kind}, budget 33 ms")
        axes.set_xlabel("load (share of capacity)")
        axes.set_ylabel(label)
        if name == "p99_ms":
            axes.set_ylim(0, LARGEST_P99_MS)
        else:
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    return path


def _points(results: Sequence[Mapping[str, Any]], kind: str, policy: str, name: str) -> list[tuple[float, float]]:
    return sorted(
        (cell["load"], cell[name])
        for cell in results
        if cell["workload"] == kind and cell["policy"] == policy and cell[name] is not None
    )
