"""The display of a running test: one table, redrawn twice a second, on standard error.

Numbers are of all processes together; p99 comes from their merged histograms. Nothing is drawn when standard error is
no terminal.
"""

import sys
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from forebay_server.loadtest import histograms
from forebay_server.loadtest.recorder import Counters
from forebay_server.loadtest.scenario import Scenario

_BAR_CELLS = 30


class LiveView:
    """Shows progress messages; a context manager. Owner: the coordinator's event loop."""

    def __init__(self, scenario: Scenario, title: str, *, is_wanted: bool = True) -> None:
        self._scenario = scenario
        self._title = title
        self._latest: dict[int, dict[str, Any]] = {}
        self._recent = histograms.merge([])
        self._total = histograms.merge([])
        console = Console(stderr=True)
        self._live = Live(console=console, refresh_per_second=2, transient=True) if is_wanted else None
        if not sys.stderr.isatty():
            self._live = None

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, process: int, progress: dict[str, Any]) -> None:
        """Take one process's progress message; draws when the first process reports."""
        if self._live is None:
            return
        if process == 0:
            self._live.update(self.table())
            self._recent = histograms.merge([])
        self.take(process, progress)

    def take(self, process: int, progress: dict[str, Any]) -> None:
        """Add one process's progress to the numbers of the table."""
        self._latest[process] = progress
        self._recent.decode_and_add(progress["hdr"])
        self._total.decode_and_add(progress["hdr"])

    def table(self) -> Table:
        """Return the current table."""
        counters = Counters()
        for progress in self._latest.values():
            counters.add(Counters(**progress["counters"]))
        elapsed_s = max((progress["elapsed_s"] for progress in self._latest.values()), default=0.0)
        lag_ms = max((progress["lag_p99_ms"] for progress in self._latest.values()), default=0.0)
        share = min(1.0, max(0.0, elapsed_s / self._scenario.duration_s))
        bar = "━" * round(share * _BAR_CELLS) + "╌" * (_BAR_CELLS - round(share * _BAR_CELLS))
        table = Table(title=f"{self._title}  {bar}  {max(elapsed_s, 0):.0f}/{self._scenario.duration_s:.0f} s")
        for name in ("offered", "sent", *(name.lower() for name in sorted(counters.answers)), "p50 now", "p99 now"):
            table.add_column(name, justify="right")
        for name in ("p99 so far", "schedule lag p99"):
            table.add_column(name, justify="right")
        table.add_row(
            str(counters.offered),
            str(counters.sent),
            *(str(counters.answers[name]) for name in sorted(counters.answers)),
            f"{histograms.percentile_ms(self._recent, 50):.1f} ms",
            f"{histograms.percentile_ms(self._recent, 99):.1f} ms",
            f"{histograms.percentile_ms(self._total, 99):.1f} ms",
            f"{lag_ms:.2f} ms",
        )
        return table
