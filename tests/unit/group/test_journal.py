"""News of streams, frames and refusals of front-end processes becomes one journal and one count."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import Outcome
from forebay_server.service.group.engine_journal import GroupJournal, JournalReceiver
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.front_end_journal import CHUNK_FRAMES, JournalShipper
from forebay_server.service.group.messages import FrontEndNumbers, LookAt
from forebay_server.service.journal.events import FrameEvent, Journal
from forebay_server.service.journal.pictures import PictureSlot, Snapshot
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.observe.frames import OUTCOMES
from forebay_server.service.observe.observer import Observer
from forebay_server.service.request import Timeline
from tests.support.clock import ManualClock

SECOND_NS = 1_000_000_000


class FrontEnd:
    """A front-end process's journal, whose messages travel as pickles to the engine process's."""

    def __init__(self, rig, number, *, has_spans=False):
        self.journal = Journal(1 + (number << 24))
        self.counts = FrontEndCounts(7, rig.clock)
        self.asked = []
        self.receiver = JournalReceiver(rig.group, self._ask)
        self.shipper = JournalShipper(
            lambda told: self.receiver.on_told(pickle.loads(pickle.dumps(told))),  # noqa: S301 - as they travel
            self.journal,
            lambda: [self.counts],
            FrontEndNumbers,
            has_spans=has_spans,
        )
        self._rig = rig

    def _ask(self, look):
        self.asked.append(look)
        self.shipper.look_at(look)

    def opens(self, name, protocol="frames", picture=None):
        return self.journal.open(name, "model", "1", protocol, picture=picture)

    def ends(self, record, outcome=None, *, after_ns=1_000_000):
        now_ns = self._rig.clock.now_ns()
        times = Timeline(now_ns - after_ns, validated_ns=now_ns - after_ns, readable_ns=now_ns, built_ns=now_ns)
        self.journal.frames.append(FrameEvent(record, times, outcome, None))


class Rig:
    def __init__(self, *, has_spans=False, size=2):
        self.clock = ManualClock(5 * SECOND_NS)
        self.journal = Journal()
        self.statistics = VersionStatistics(self.clock)
        self.group = GroupJournal(self.journal, {7: self.statistics}.get)
        self.observer = Observer(self.journal, self.clock)
        self.fronts = [FrontEnd(self, number, has_spans=has_spans) for number in range(size)]

    def tick(self):
        for front in self.fronts:
            front.shipper.tell_all()
        self.observer.tick()

    def names(self):
        streams = self.observer.streams
        return sorted(streams.at(index).name for index in streams.indices)


@pytest.mark.parametrize("has_spans", [False, True])
def test_streams_and_frames_of_all_processes_are_one_journal(has_spans):
    rig = Rig(has_spans=has_spans)
    left, right = rig.fronts
    gate, yard = left.opens("gate"), right.opens("yard")
    for front, record, count in ((left, gate, 3), (right, yard, 5)):
        for _ in range(count):
            front.ends(record)
    right.ends(yard, Outcome.EXPIRED)
    rig.tick()
    assert rig.names() == ["gate", "yard"]
    (model,) = rig.observer.models
    assert model.outcomes[OUTCOMES.index(Outcome.OK)] == 8
    assert model.outcomes[OUTCOMES.index(Outcome.EXPIRED)] == 1
    left.journal.close(gate, {Outcome.OK: 3})
    rig.tick()
    assert rig.names() == ["yard"]


def test_more_frames_than_a_message_has_are_all_told_before_their_stream_ends():
    rig = Rig(size=1)
    (front,) = rig.fronts
    record = front.opens("gate")
    for _ in range(2 * CHUNK_FRAMES + 7):
        front.ends(record)
    front.journal.close(record, {Outcome.OK: 2 * CHUNK_FRAMES + 7})
    assert front.shipper.tell()
    rig.tick()
    (model,) = rig.observer.models
    assert model.outcomes.sum() == 2 * CHUNK_FRAMES + 7
    assert rig.names() == []


def test_frames_are_in_the_order_of_their_results():
    rig = Rig()
    records = [front.opens(str(index)) for index, front in enumerate(rig.fronts)]
    for step in range(10):
        rig.clock.advance(1_000_000)
        rig.fronts[step % 2].ends(records[step % 2])
    rig.tick()
    built = rig.observer.frames.latest()[4]
    assert len(built) == 10
    assert (np.diff(built) >= 0).all()


def test_requests_of_one_version_are_one_stream_in_whichever_process_they_come():
    rig = Rig()
    for front in rig.fronts:
        front.ends(front.opens("(Open Inference)", "inference"))
    rig.tick()
    assert rig.names() == ["(Open Inference)"]
    assert rig.observer.models[0].outcomes.sum() == 2
    rig.fronts[0].receiver.end()
    rig.observer.tick()
    assert rig.names() == ["(Open Inference)"]
    rig.fronts[1].receiver.end()
    rig.observer.tick()
    assert rig.names() == []


def test_the_streams_of_a_process_that_died_are_closed():
    rig = Rig()
    for front in rig.fronts:
        front.ends(front.opens("camera"))
    rig.tick()
    rig.fronts[0].receiver.end()
    rig.observer.tick()
    assert len(rig.names()) == 1


def test_refusals_are_counted_once():
    rig = Rig(size=1)
    (front,) = rig.fronts
    for outcome in (Outcome.EXPIRED, Outcome.OVERLOADED, Outcome.INVALID, Outcome.EXPIRED):
        front.counts.refuse(outcome, rig.clock.now_ns() - 1000)
    front.shipper.tell_counts()
    front.shipper.tell_counts()
    rig.tick()
    counts = rig.statistics.snapshot()
    assert (counts.fail.count, counts.fail.ns) == (4, 4000)
    assert counts.failures == {"REJECTED": 3, "OTHER": 1}


def test_a_reader_of_the_page_gets_the_picture_of_a_stream_in_another_process():
    rig = Rig(size=1)
    (front,) = rig.fronts
    own = PictureSlot()
    record = front.opens("gate", picture=own)
    rig.tick()
    slot = rig.observer.open_stream(record.uid).picture
    slot.is_looked_at = True
    slot.want()
    assert own.is_wanted
    assert own.is_looked_at
    own.put(Snapshot(memoryview(b"pixels"), 1, (2, 1), (), 5, rig.clock.now_ns()))
    rig.tick()
    assert bytes(slot.latest.payload) == b"pixels"
    slot.empty()
    assert front.asked[-1] == LookAt(record.uid, is_wanted=False, is_looked_at=False)
    assert own.latest is None


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["open", "frame", "close", "tell", "tick"])), max_size=60))
def test_every_frame_is_counted_once_whatever_the_order_of_telling(steps):
    rig, ended = Rig(), 0
    open_records = ([], [])
    for number, step in steps:
        front, records = rig.fronts[number], open_records[number]
        if step == "open":
            records.append([front.opens("camera"), 0])
        elif step == "frame" and records:
            front.ends(records[-1][0])
            records[-1][1] += 1
            ended += 1
        elif step == "close" and records:
            record, count = records.pop()
            front.journal.close(record, {Outcome.OK: count})
        elif step == "tell":
            front.shipper.tell()
        elif step == "tick":
            rig.observer.tick()
    rig.tick()
    assert sum(model.outcomes.sum() for model in rig.observer.models) == ended
    assert len(rig.names()) == len(open_records[0]) + len(open_records[1])
