"""Who read and wrote which bytes of one memory, and whether a new access is ordered after those it conflicts with.

Two accesses conflict if they share a byte and one of them writes. A conflict that no edge orders is a race, whether or
not this run happened to do it in the right order.

A write forgets what it covers: whoever comes later must be ordered after the write, and so after all before it. A read
forgets earlier reads of the same actor that it covers. So the log stays as long as the number of ranges in use.
"""

from dataclasses import dataclass, replace

from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes `start` .. `end` read or written by one operation; `label` says by what, for people."""

    start: int
    end: int
    is_write: bool
    epoch: Epoch
    label: str


class AccessLog:
    """The accesses of one memory that still matter. Owner: the device's lock."""

    def __init__(self) -> None:
        self._accesses: list[Access] = []

    def __len__(self) -> int:
        return len(self._accesses)

    def conflict(self, access: Access, clock: VectorClock) -> Access | None:
        """Return an earlier access that conflicts with `access` and that `clock` does not know, if there is one."""
        if access.start >= access.end:
            return None
        for earlier in self._accesses:
            is_apart = earlier.end <= access.start or access.end <= earlier.start
            if is_apart or not (earlier.is_write or access.is_write) or clock.knows(earlier.epoch):
                continue
            return earlier
        return None

    def add(self, access: Access) -> None:
        """Remember `access`, which conflicts with nothing, and forget what no longer matters."""
        if access.start >= access.end:
            return
        if access.is_write:
            self._accesses = [rest for earlier in self._accesses for rest in _outside(earlier, access)]
        else:
            self._accesses = [earlier for earlier in self._accesses if not _supersedes(access, earlier)]
        self._accesses.append(access)


def _outside(earlier: Access, access: Access) -> list[Access]:
    """What remains of `earlier` outside the bytes of `access`: nothing, one part, or two."""
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
