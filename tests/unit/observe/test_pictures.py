"""Access to pictures, their rate, and the kept data."""

import json
from types import SimpleNamespace

import pytest

from forebay_server.service.journal.pictures import PictureSlot, Snapshot
from forebay_server.service.observe.pictures import INTERVAL_NS, LOOKING_NS, MAX_LOOKED_AT, Pictures, TooManyLooksError
from tests.support.clock import ManualClock

BOX = SimpleNamespace(label='per"son\n', score=0.91234, box=(0.1, 0.2, 0.30001, 0.4))


class Looking:
    def __init__(self):
        self.clock = ManualClock(1_000_000_000_000)
        self.made = []
        self.pictures = Pictures(self.make, self.clock)
        self.slot = PictureSlot()

    def make(self, payload, encoding, size):
        self.made.append(bytes(payload))
        return b"\xff\xd8", 64, 48

    def look(self):
        return json.loads(self.pictures.look(7, self.slot))

    def tick(self, closed=()):
        self.pictures.tick(lambda uid: uid not in closed)

    def put(self, payload=b"frame", seq=5, results=(BOX,)):
        self.slot.is_wanted = False  # as the session does when it takes a frame
        self.slot.put(Snapshot(memoryview(payload), 4, (640, 480), results, seq, self.clock.now_ns()))


@pytest.fixture
def looking():
    return Looking()


def test_nothing_is_kept_while_nobody_looks(looking):
    looking.put()
    assert not looking.slot.is_wanted
    assert looking.slot.latest is None


def test_looking_asks_for_a_frame_and_the_next_look_shows_it(looking):
    assert looking.look() == {}
    assert looking.slot.is_wanted
    looking.put()
    looking.clock.advance(3_000_000)
    shown = looking.look()
    assert shown["results"] == [{"label": 'per"son\n', "score": 0.912, "box": [0.1, 0.2, 0.3, 0.4]}]
    assert (shown["seq"], shown["width"], shown["height"], shown["sent"]) == (5, 64, 48, [640, 480])
    assert shown["jpeg"] == "/9g="
    assert shown["shown_after_ms"] == 3


def test_one_frame_a_second_however_many_look(looking):
    asked = 0
    for _ in range(50):  # ten seconds, five looks each
        for _ in range(5):
            looking.look()
            if looking.slot.is_wanted:
                asked += 1
                looking.put()
        looking.clock.advance(INTERVAL_NS // 5)
    assert asked == 10
    assert len(looking.made) == 10


def test_what_nobody_asks_for_any_more_is_let_go(looking):
    looking.look()
    looking.put()
    looking.clock.advance(LOOKING_NS + 1)
    looking.tick()
    assert (looking.slot.is_looked_at, looking.slot.is_wanted, looking.slot.latest) == (False, False, None)
    looking.slot.latest = "put at the same moment"
    looking.tick()
    assert looking.slot.latest is None
    looking.tick()
    assert looking.pictures._looks == {}
    looking.look()
    assert looking.slot.is_looked_at


def test_a_stream_that_has_closed_is_let_go_at_once_and_makes_room(looking):
    looking.look()
    looking.put()
    looking.tick(closed=[7])
    assert looking.slot.latest is None
    assert not looking.slot.is_looked_at
    for uid in range(MAX_LOOKED_AT):
        looking.pictures.look(100 + uid, PictureSlot())


def test_a_look_between_the_two_steps_of_letting_go_counts(looking):
    looking.look()
    looking.clock.advance(LOOKING_NS + 1)
    looking.tick()
    looking.look()
    looking.tick()
    assert looking.slot.is_looked_at
    looking.put()
    assert looking.look()["seq"] == 5


def test_only_some_streams_are_looked_at_at_once(looking):
    for uid in range(MAX_LOOKED_AT):
        looking.pictures.look(100 + uid, PictureSlot())
    with pytest.raises(TooManyLooksError):
        looking.look()
    assert not looking.slot.is_wanted
    looking.clock.advance(LOOKING_NS + 1)
    for _ in range(2):
        looking.tick()
    assert looking.look() == {}


def test_many_results_are_cut(looking):
    looking.look()
    looking.put(results=[BOX] * 1000)
    assert len(looking.look()["results"]) == 100
