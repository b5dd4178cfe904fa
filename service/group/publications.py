"""The model versions that front-end processes know, and the numbers that name these versions in descriptors.

Owner: the event loop's thread.
"""

import itertools
from collections.abc import Callable, Set

from forebay_server.service.group.messages import Published
from forebay_server.service.group.peer import Peer
from forebay_server.service.group.version_memory import VersionMemory
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.models.version import ModelVersion


class Publications:
    """See the module.

    Args:
        in_use: returns the versions that serve, and those that a front-end process still uses.
    """

    def __init__(self, in_use: Callable[[], Set[ModelVersion]]) -> None:
        self._in_use = in_use
        self._numbers: dict[ModelVersion, int] = {}
        self._next_number = itertools.count(1).__next__  # no number comes again

    def number_of(self, version: ModelVersion) -> int | None:
        """Return the number of a version; None if it was never published."""
        return self._numbers.get(version)

    def statistics(self, number: int) -> VersionStatistics | None:
        """Return the statistics of the version with a number; None if it is closed."""
        return next((each.statistics for each, own in self._numbers.items() if own == number), None)

    def publish(self, peer: Peer, version: ModelVersion) -> None:
        """Send a version to a front-end process, and hold it open until the process uses it no more."""
        if not version.try_use():
            return  # retired meanwhile
        number = self._numbers.get(version)
        if number is None:
            self._forget_closed()
            number = self._numbers[version] = self._next_number()
        memory = memory_of(version)
        memory.header.write_row(version.row_ns)
        peer.versions[number] = version
        peer.link.add_version(number, version, memory.shares[peer.front_end])
        published = Published(number, version.name, version.version, version.description, memory.layout)
        peer.talk.send(published, [memory.fd])

    def _forget_closed(self) -> None:
        in_use = self._in_use()
        self._numbers = {version: number for version, number in self._numbers.items() if version in in_use}


def memory_of(version: ModelVersion) -> VersionMemory:
    """Return the memory that a version shares with front-end processes."""
    memory = version.memory
    assert isinstance(memory, VersionMemory)  # noqa: S101 - all versions of an engine process have one
    return memory
