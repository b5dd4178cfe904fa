"""Current numbers of the whole group, for the gauges of its one admin port. Thread: any."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from forebay_server.service.group.messages import FrontEndNumbers
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.reception import ReceptionNumbers
from forebay_server.service.journal.streams import sum_of
from forebay_server.service.load.moving import FrameTotals

Numbers = Callable[[], Sequence[FrontEndNumbers]]
"""Returns what each front-end process last told."""


class GroupPoolNumbers:
    """The worker pools of all front-end processes, as `service.observe.gauges` reads one."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    @property
    def thread_count(self) -> int:
        """Workers."""
        return sum(each.worker_threads for each in self._numbers())

    @property
    def busy_count(self) -> int:
        """Workers that have a job."""
        return sum(each.workers_busy for each in self._numbers())

    @property
    def waiting_count(self) -> int:
        """Jobs that wait."""
        return sum(each.worker_jobs_waiting for each in self._numbers())


class GroupPermitNumbers:
    """The permits of the group.

    Args:
        count: how many there are.
        counts: those that are out, by front-end process.
    """

    def __init__(self, count: int, counts: PermitCounts) -> None:
        self.count = count
        self._counts = counts

    @property
    def taken_count(self) -> int:
        """How many are out."""
        return self._counts.total()


def counters_of(numbers: Sequence[FrontEndNumbers]) -> FrontEndNumbers:
    """Return the counts of processes that have ended, without the numbers of what they held."""
    streams = replace(sum_of(each.streams for each in numbers), inference=0, is_draining=False)
    return FrontEndNumbers(
        reception=ReceptionNumbers(ended=reception_of(numbers).ended),
        log_lines_dropped=sum(each.log_lines_dropped for each in numbers),
        streams=streams,
        frames=frames_of(numbers)._replace(streams=0),
    )


def processes_of(numbers: Sequence[FrontEndNumbers]) -> list[ProcessNumbers]:
    """Return the front-end processes, in the order of their names."""
    return sorted((each.process for each in numbers if each.process is not None), key=lambda each: each.name)


def frames_of(numbers: Sequence[FrontEndNumbers]) -> FrameTotals:
    """Return the totals of frames of all front-end processes."""
    every = [each.frames for each in numbers]
    return FrameTotals(*(sum(values) for values in zip(*every, strict=True))) if every else FrameTotals()


def reception_of(numbers: Sequence[FrontEndNumbers]) -> ReceptionNumbers:
    """Return the messages in reception of all front-end processes."""
    receptions = [each.reception for each in numbers]
    ended: Counter[str] = Counter()
    for each in receptions:
        ended.update(each.ended)
    return ReceptionNumbers(
        connections=sum(each.connections for each in receptions),
        held_bytes=sum(each.held_bytes for each in receptions),
        waiting=sum(each.waiting for each in receptions),
        ended=dict(ended),
    )
