"""Vector clocks: the operations that an actor (the host, or a device stream) knows to have happened.

An actor counts its own operations. Operation n of actor a happened before every holder of a clock whose count for a is
at least n. Joining two clocks means learning the other's knowledge. Values are immutable, so a snapshot is the value.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Epoch(NamedTuple):
    """One operation: the `number`-th of `actor`."""

    actor: int
    number: int


class VectorClock:
    """The number of operations of each actor that are known to have happened."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts = dict(counts or {})

    def count(self, actor: int) -> int:
        """Return the number of known operations of `actor`."""
        return self._counts.get(actor, 0)

    def items(self) -> Iterable[tuple[int, int]]:
        """Return (actor, count) pairs."""
        return self._counts.items()

    def tick(self, actor: int) -> "VectorClock":
        """Return this clock after one more operation of `actor`."""
        counts = dict(self._counts)
        counts[actor] = counts.get(actor, 0) + 1
        return VectorClock(counts)

    def join(self, other: "VectorClock") -> "VectorClock":
        """Return the joint knowledge of this clock and `other`."""
        counts = dict(self._counts)
        for actor, count in other.items():
            counts[actor] = max(count, counts.get(actor, 0))
        return VectorClock(counts)

    def knows(self, epoch: Epoch) -> bool:
        """Whether the operation `epoch` happened before the holder of this clock."""
        return self._counts.get(epoch.actor, 0) >= epoch.number

    def __le__(self, other: "VectorClock") -> bool:
        """Whether `other` includes all knowledge of this clock."""
        return all(count <= other.count(actor) for actor, count in self._counts.items())

    def __eq__(self, other: object) -> bool:
        """Whether both have the same knowledge."""
        return isinstance(other, VectorClock) and self <= other and other <= self

    def __hash__(self) -> int:
        """Agree with equality: a count of 0 equals a missing count."""
        return hash(frozenset((actor, count) for actor, count in self._counts.items() if count))

    def __repr__(self) -> str:
        return f"VectorClock({self._counts})"
