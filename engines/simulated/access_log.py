"""The reads and writes of each range of one memory, and the check that a new access is ordered after conflicting ones.

Two accesses conflict if they share a byte and one of them writes. A conflict that no edge orders is a race, even if
this run happened to do it in the right order.

A write replaces the accesses that it covers: later accesses must be ordered after the write, and so after all before
it. A read replaces earlier reads of the same actor that it covers. So the log stays as long as the number of ranges in
use.
"""

from dataclasses import dataclass, replace

from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes `start` .. `end` read or written by one operation; `label` describes the operation for people."""

    start: int
    end: int
    is_write: bool
    epoch: Epoch
    label: str


class AccessLog:
    """The relevant accesses of one memory. Owner: the device's lock."""

    def __init__(self) -> None:
        self._accesses: list[Access] = []

    def __len__(self) -> int:
        return len(self._accesses)

    def conflict(self, access: Access, clock: VectorClock) -> Access | None:
        """Return an earlier access that conflicts with `access` and is not included in `clock`, if there is one."""
        if access.start >= access.end:
            return None
        for earlier in self._accesses:
            is_apart = earlier.end <= access.start or access.end <= earlier.start
            if is_apart or not (earlier.is_write or access.is_write) or clock.knows(earlier.epoch):
                continue
            return earlier
        return None

    def add(self, access: Access) -> None:
        """Add `access`, which conflicts with none, and drop accesses that it makes irrelevant."""
        if access.start >= access.end:
            return
        if access.is_write:
            self._accesses = [rest for earlier in self._accesses for rest in _outside(earlier, access)]
        else:
            self._accesses = [earlier for earlier in self._accesses if not _supersedes(access, earlier)]
        self._accesses.append(access)


def _outside(earlier: Access, access: Access) -> list[Access]:
    """The part of `earlier` outside the bytes of `access`: none, one range, or two."""
    if earlier.end <= access.start or access.end <= earlier.start:
        return [earlier]
    parts = []
    if earlier.start < access.start:
        parts.append(replace(earlier, end=access.start))
    if access.end < earlier.end:
        parts.append(replace(earlier, start=access.end))
    return parts


def _supersedes(read: Access, earlier: Access) -> bool:
    return (
        not earlier.is_write
        and earlier.epoch.actor == read.epoch.actor
        and read.start <= earlier.start
        and earlier.end <= read.end
    )
