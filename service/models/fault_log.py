"""Logs the faults of a model repository, and those of a scan that found the same as the one before only once.

Thread: one at a time: that of the start, then that of polling.
"""

import structlog

from forebay_server.service.models.repository import Scan

log = structlog.get_logger(__name__)


class FaultLog:
    """See the module. Contains the faults that the last scan found."""

    def __init__(self) -> None:
        self._faults: frozenset[str] = frozenset()

    def __contains__(self, fault: str) -> bool:
        return fault in self._faults

    def note_scan(self, scan: Scan) -> None:
        """Log the faults of a scan."""
        versions = (line for entry in scan.models for line in entry.passed_over)
        self.note((*scan.problems, *scan.passed_over, *versions))

    def note(self, faults: tuple[str, ...]) -> None:
        """Log faults that the last scan did not find."""
        for fault in faults:
            if fault not in self._faults:
                log.warning("model repository", detail=fault)
        self._faults = frozenset(faults)
