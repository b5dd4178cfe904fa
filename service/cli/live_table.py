"""The live table of a terminal: one row for each camera."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from forebay_server.service.cli.player import RECENT, CameraLog, percentile


def camera_table(title: str, logs: Sequence[CameraLog]) -> Table:
    """Return the current table; its latencies are those of the latest results."""
    caption = f"latencies of the last {RECENT} results of each camera"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False  # fits a terminal of 80 columns
    table.add_column("camera", no_wrap=True)
    for heading in ("fps", "sent", "OK", "superseded", "else", "p50 ms", "p99 ms", "age", "found"):
        table.add_column(heading, justify="right", no_wrap=True)
    for log in logs:
        table.add_row(*_row(log))
    return table


def _row(log: CameraLog) -> list[str]:
    recent = log.latencies_ms[-RECENT:]
    ok, superseded = log.by_status["ok"], log.by_status["superseded"]
    last = next(reversed(log.findings.values()), None)
    return [
        log.name,
        f"{log.fps:.1f}",
        str(log.offered),
        str(ok),
        str(superseded),
        str(log.by_status.total() - ok - superseded),
        _number(percentile(recent, 0.5)),
        _number(percentile(recent, 0.99)),
        _number(log.ages_ms[-1] if log.ages_ms else None),
        "-" if last is None else str(len(last)),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
