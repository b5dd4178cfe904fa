"""The access log forgets only irrelevant accesses."""

from forebay_server.engines.simulated.access_log import Access, AccessLog
from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock

A, B, C = 1, 2, 3


class Log:
    """An access log and the clock of each actor."""

    def __init__(self):
        self.log = AccessLog()
        self.clocks = {actor: VectorClock() for actor in (A, B, C)}

    def learn(self, actor, other):
        self.clocks[actor] = self.clocks[actor].join(self.clocks[other])

    def access(self, actor, start, end, *, is_write):
        """Make an access; returns the earlier one it races with, if any."""
        self.clocks[actor] = clock = self.clocks[actor].tick(actor)
        access = Access(start, end, is_write, Epoch(actor, clock.count(actor)), f"actor {actor}")
        earlier = self.log.conflict(access, clock)
        if earlier is None:
            self.log.add(access)
        return earlier

    def read(self, actor, start=0, end=8):
        return self.access(actor, start, end, is_write=False)

    def write(self, actor, start=0, end=8):
        return self.access(actor, start, end, is_write=True)


def test_a_read_of_one_actor_does_not_hide_that_of_another():
    log = Log()
    log.read(A)
    log.read(B)
    log.learn(C, B)
    assert log.write(C).label == "actor 1"


def test_a_later_read_of_the_same_actor_stands_for_the_earlier():
    log = Log()
    log.read(A, 2, 4)
    log.read(A)
    assert len(log.log) == 1
    log.learn(B, A)
    assert log.write(B) is None


def test_a_later_read_of_fewer_bytes_does_not_hide_the_earlier():
    for part in ((0, 4), (2, 6), (4, 8)):
        log = Log()
        log.read(A)
        log.read(A, *part)
        assert log.write(B, 0, 1) is not None
        assert log.write(B, 7, 8) is not None


def test_a_write_leaves_what_it_does_not_cover_of_an_earlier_one():
    log = Log()
    log.write(A)
    log.learn(B, A)
    log.write(B, 3, 5)
    assert log.write(C, 0, 3).label == "actor 1"
    assert log.write(C, 5, 8).label == "actor 1"
    assert log.read(C, 3, 5).label == "actor 2"


def test_an_ordered_write_stands_for_all_that_it_covers():
    log = Log()
    log.read(A)
    log.write(A, 2, 4)
    log.learn(B, A)
    log.write(B)
    assert len(log.log) == 1


def test_neighbouring_bytes_are_apart_and_no_bytes_touch_nothing():
    log = Log()
    log.write(A, 0, 4)
    assert log.write(B, 4, 8) is None
    assert log.write(B, 2, 2) is None
    assert log.write(C, 3, 5).label in {"actor 1", "actor 2"}


def test_reads_of_the_same_bytes_are_no_conflict():
    log = Log()
    log.read(A)
    assert log.read(B) is None
    assert log.write(A).label == "actor 2"
