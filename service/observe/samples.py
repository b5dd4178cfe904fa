"""The gauges of the last seconds: one reading says little about what goes up and down within milliseconds.

Owner: the observer's thread.
"""

from collections import deque

from forebay_server.service.observe.gauges import ServerGauges, VersionGauges

KEPT = 5  # one a second


class GaugeSamples:
    """See the module."""

    def __init__(self) -> None:
        self._servers: deque[ServerGauges] = deque(maxlen=KEPT)
        self._versions: deque[dict[tuple[str, str], VersionGauges]] = deque(maxlen=KEPT)

    def add(self, server: ServerGauges, versions: list[VersionGauges]) -> None:
        """Take a reading."""
        self._servers.append(server)
        self._versions.append({(each.model, each.version): each for each in versions})

    def are_workers_busy(self) -> bool:
        """Whether every worker had a job at each reading."""
        return len(self._servers) == KEPT and all(
            0 < each.worker_threads <= each.workers_busy for each in self._servers
        )

    def are_slots_full(self, model: str, version: str) -> bool:
        """Whether every slot of a version was taken at each reading."""
        found = [each.get((model, version)) for each in self._versions]
        return len(found) == KEPT and all(each is not None and 0 < each.slots <= each.slots_in_use for each in found)
