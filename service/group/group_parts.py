"""The parts of a front-end process that belong to the whole group: permits, counts of streams, journal.

Owner: the event loop's thread.
"""

from forebay_server.service.clock import Clock
from forebay_server.service.group.group_permits import GroupPermits
from forebay_server.service.group.group_streams import GroupStreams
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import most_requests
from forebay_server.service.group.shared_counts import PermitCounts, StreamCounts
from forebay_server.service.journal.events import Journal
from forebay_server.service.settings import ServeSettings


class GroupParts:
    """See the module.

    Args:
        settings: of this process.
        index: of this process.
        clock: source of monotonic nanoseconds.
        journal: made when it is opened, if the settings say so.

    Attributes:
        permits: of this process; from `open` on.
        streams: those of the other processes; from then on, too.
        journal: of this process; from then on. None: nothing is observed.
        is_open: whether `open` was called.
    """

    permits: GroupPermits
    streams: GroupStreams

    def __init__(self, settings: ServeSettings, index: int, clock: Clock, journal: type[Journal] = Journal) -> None:
        self.journal: Journal | None = None
        self.is_open = False
        self._settings = settings
        self._index = index
        self._clock = clock
        self._make_journal = journal

    def open(self, file: MemoryFile, first_uid: int) -> None:
        """Make all parts.

        Args:
            file: with the permits of the group; owned from now on.
            first_uid: streams of this process are numbered from here on.
        """
        settings, index = self._settings, self._index
        count = int(settings.front_ends)
        self._file = file
        counts = PermitCounts(file.memory, count)
        self.streams = GroupStreams(StreamCounts(file.memory, count), index)
        most = most_requests(settings.permits, count)
        self.permits = GroupPermits(counts, index, count, settings.permits, most, self._clock)
        if settings.admin_address or settings.trace_every_frames:
            self.journal = self._make_journal(first_uid)
        self.is_open = True


class OfGroup:
    """Has these parts for a front-end process: its only engine process, or all of them as one.

    Args:
        group: the parts; made by the first message of an engine process.
    """

    def __init__(self, group: GroupParts) -> None:
        self._group = group

    @property
    def permits(self) -> GroupPermits:
        """Of this process; from the first message on."""
        return self._group.permits

    @property
    def streams(self) -> GroupStreams:
        """Those of the other front-end processes; from the first message on."""
        return self._group.streams

    @property
    def journal(self) -> Journal | None:
        """Of this process; from the first message on. None: nothing is observed."""
        return self._group.journal
