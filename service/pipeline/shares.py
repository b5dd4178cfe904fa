"""Who may hold how many of a fixed number of things: max-min fair shares, decided in constant time. Pure.

Theory of operation
    The *want* of a share is the largest number that it held or asked for of late. While all wants together fit, every
    share may take up to its want. When they do not, there is a *level*: the largest number that every share can be
    promised at once, where a share with a smaller want is promised its want. So small wants are met in full, and all
    other shares get the same, however much they ask for. A share of weight w counts as w streams: its promise is w
    times the level.

    A share takes while it holds less than its promise. The level leaves a rest, less than one for each stream that
    wants more: the first to ask gets it (`extra`), at most one for each stream. Nothing is taken away: a share that
    holds more than its promise, because other shares have come, takes nothing until it has given back enough.

    Wants rise at once, and fall by being forgotten: a want that did not recur for one to two `MEMORY_NS` no longer
    counts. So a camera keeps its place between two frames, and a stream that has gone soon limits no other.

    The level moves in steps of one, over a histogram of wants, whenever a want changes. It moves no further than wants
    rose before, so that a take costs the same however many shares there are.

Owner: the caller, one thread at a time. Why: docs/adr/0114.
"""

from collections import deque
from weakref import ReferenceType

MEMORY_NS = 5_000_000_000
AGED_AT_ONCE = 2
"""Shares whose old wants each take forgets: more than the one share that a take can add."""


class Share:
    """The things that one stream holds, and its want. `Shares` alone writes it.

    Attributes:
        weight: how many streams it counts as.
        in_use: permits that it has.
        extra: how many of these are beyond its promise.
        peak: most that it wanted since `aged_ns`.
        earlier_peak: most that it wanted in the period before.
        aged_ns: when the period began.
        units: its want in multiples of its weight, rounded up.
        counted: its weight where promises are added up; no more than it wants.
        is_remembered: whether it will be looked at again.
        follows: whether its newest request replaces one that waits, and so goes to the same engine process.
        route: the version in that engine process, where there are several; its router's. Weak: a stream outlives it.
    """

    __slots__ = (
        "__weakref__",
        "aged_ns",
        "counted",
        "earlier_peak",
        "extra",
        "follows",
        "in_use",
        "is_remembered",
        "peak",
        "route",
        "units",
        "weight",
    )

    def __init__(self, weight: int = 1) -> None:
        self.weight = weight
        self.in_use = 0
        self.extra = 0
        self.peak = 0
        self.earlier_peak = 0
        self.aged_ns = 0
        self.units = self.counted = 0
        self.is_remembered = self.follows = False
        self.route: ReferenceType[object] | None = None


class Shares:
    """See the module's theory of operation.

    Args:
        count: how many there are to hold, all together; `resize` may lower it for a while.

    Attributes:
        count: how many there are now.
        in_use: of all shares together.
        level: the promise of a stream that wants more.
    """

    def __init__(self, count: int) -> None:
        self.count = self._most = count
        self.in_use = 0
        self.level = 0
        self._weights = [0] * (count + 1)  # of the shares, by their units
        self._promised = 0  # to all together
        self._wanting = 0  # weight of those that want more than the level
        self._extras = 0
        self._remembered: deque[Share] = deque()  # by `aged_ns`

    @property
    def remembered(self) -> int:
        """How many shares want something, or have of late."""
        return len(self._remembered)

    def take(self, share: Share, now_ns: int) -> bool:
        """Let a share take one more; False if it may not have it now."""
        self._forget(now_ns)
        if not share.is_remembered:
            share.is_remembered = True
            share.aged_ns = now_ns
            self._remembered.append(share)
        if share.in_use >= share.peak:
            share.peak = share.in_use + 1
            self._want(share)
        if self.in_use >= self.count or not self._may_take(share):
            return False
        share.in_use += 1
        self.in_use += 1
        return True

    def _may_take(self, share: Share) -> bool:
        beyond = share.in_use - share.extra - share.weight * self.level
        if beyond < 0:
            return True
        if beyond or share.extra == share.weight or self._promised + self._extras >= self.count:
            return False
        share.extra += 1
        self._extras += 1
        return True

    def give_back(self, share: Share) -> None:
        """Take one back from a share."""
        share.in_use -= 1
        self.in_use -= 1
        if share.extra:
            share.extra -= 1
            self._extras -= 1

    def leave(self, share: Share) -> None:
        """Forget the want of a share at once. The share gives back the things that it holds as before."""
        share.peak = share.earlier_peak = 0
        self._want(share)

    def resize(self, count: int) -> None:
        """Let there be another number to hold, at most the one given at first. Nothing is taken back."""
        self.count = count
        self._settle(self.level, self._promised, self._wanting)

    def _forget(self, now_ns: int) -> None:
        """Begin a new period for the shares whose period is over, a few of them."""
        remembered = self._remembered
        for _ in range(AGED_AT_ONCE):
            if not remembered or now_ns - remembered[0].aged_ns < MEMORY_NS:
                return
            share = remembered.popleft()
            share.earlier_peak, share.peak = share.peak, share.in_use
            self._want(share)
            share.aged_ns = now_ns
            share.is_remembered = share.units > 0
            if share.is_remembered:
                remembered.append(share)

    def _want(self, share: Share) -> None:
        """Count what a share wants now, and move the level to where it belongs."""
        level, weights, before, counted_before = self.level, self._weights, share.units, share.counted
        want = max(share.peak, share.earlier_peak)
        units = share.units = min(self._most, -(-want // share.weight))
        counted = share.counted = min(share.weight, want)
        if (units, counted) == (before, counted_before):
            return
        weights[before] -= counted_before
        weights[units] += counted
        promised = self._promised + counted * min(units, level) - counted_before * min(before, level)
        wanting = self._wanting + counted * (units > level) - counted_before * (before > level)
        self._settle(level, promised, wanting)

    def _settle(self, level: int, promised: int, wanting: int) -> None:
        """Move the level to where it belongs, from one that is not far."""
        weights = self._weights
        while promised > self.count:
            wanting += weights[level]
            promised -= wanting
            level -= 1
        while wanting and promised + wanting <= self.count:
            level += 1
            promised += wanting
            wanting -= weights[level]
        self.level, self._promised, self._wanting = level, promised, wanting
