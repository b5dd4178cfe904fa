"""The real former thread under arbitrary sequences of events: nothing is lost, doubled, reordered or left behind."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Delivery
from tests.support.batching import MS, FormerRig, StrictLane, cost_model, request, stream
from tests.support.clock import ManualClock

steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 3), st.sampled_from([None, 0, 4, 12, 33, 200])),
        st.tuples(st.just("time"), st.integers(1, 9_000), st.none()),
        st.tuples(st.just("finish"), st.integers(0, 3), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 50), st.none()),
        st.tuples(st.just("deliver"), st.integers(0, 40), st.none()),
    ),
    max_size=40,
)


class Play:
    """A former under test, with a way to wait until it has dealt with everything so far."""

    def __init__(self, rig):
        self.rig = rig
        self.requests = []
        self.finished = set()
        self.probes = set()

    def sync(self):
        """Wait until the former has handled all events so far: a request that is hopeless is answered at once."""
        probe = request(self.rig.clock.now_ns(), -1)
        self.probes.add(probe)
        self.rig.former.arrive(probe)
        with self.rig.sink._changed:
            assert self.rig.sink._changed.wait_for(
                lambda: any(completion.request is probe for completion in self.rig.sink.completions), 10.0
            )

    @property
    def running(self):
        return [b for lane in self.rig.lanes for b in lane.batches if b.id not in self.finished]

    def finish(self, batch):
        self.finished.add(batch.id)
        self.rig.finish(batch)

    def shed(self):
        return [c.request for c in self.rig.sink.completions if c.request not in self.probes]


@settings(max_examples=25)
@given(steps, st.integers(1, 2))
def test_every_request_ends_exactly_once_whatever_happens(events, lanes):
    clock = ManualClock()
    streams = [stream(str(n), Delivery.LATEST if n % 2 else Delivery.EVERY) for n in range(4)]
    lanes = [StrictLane(index, slot_count=2 + index) for index in range(lanes)]
    with FormerRig(clock, BatchingSettings(4), cost_model(4), lanes, permits=200) as rig:
        play = Play(rig)
        for kind, a, b in events:
            match kind:
                case "arrive":
                    one = request(clock.now_ns(), b, on=streams[a])
                    play.requests.append(one)
                    rig.former.arrive(one)
                case "time":
                    clock.advance(a * 1000)
                case "finish" if play.running:
                    play.finish(play.running[a % len(play.running)])
                case "cancel" if play.requests:
                    rig.former.cancel([play.requests[a % len(play.requests)]])
                case "deliver":
                    rig.former.egress_time.observe(clock.now_ns() - a * MS, clock.now_ns())
                case _:
                    pass
        let_all_end(play, clock)
        assert rig.former.drain()
        statistics = rig.former.statistics()
        assert (statistics.pending_requests, statistics.in_flight) == (0, 0)
    check(play, streams)


def let_all_end(play, clock):
    for _ in range(2_000):
        play.sync()
        for batch in play.running:
            play.finish(batch)
        executed = sum(len(b.requests) for lane in play.rig.lanes for b in lane.batches)
        if executed + len(play.shed()) == len(play.requests) and not play.running:
            play.sync()
            return
        clock.advance(MS // 2)
    raise AssertionError("some requests never ended")


def check(play, streams):
    batches = sorted((b for lane in play.rig.lanes for b in lane.batches), key=lambda batch: batch.id)
    executed = [r for b in batches for r in b.requests]
    ended = executed + play.shed()
    assert len({r.id for r in ended}) == len(ended) == len(play.requests)
    assert all(b.rows <= play.rig.settings.max_batch_size for b in batches)
    for one_stream in streams:
        ids = [r.id for r in executed if r.stream is one_stream]
        assert ids == sorted(ids)
    assert all(r.frame.releases == 1 for r in play.shed())
    assert all(r.timeline.formed_ns >= r.arrival_ns for r in executed)
    assert all(slot == "FREE" for lane in play.rig.lanes for slot in lane.slots)


def test_arrivals_from_many_threads_all_end_once():
    clock = ManualClock()
    with FormerRig(clock, permits=400) as rig:
        sent = [[request(clock.now_ns(), 5) for _ in range(50)] for _ in range(6)]
        threads = [threading.Thread(target=lambda mine=mine: [*map(rig.former.arrive, mine)]) for mine in sent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        play = Play(rig)
        play.requests = [r for mine in sent for r in mine]
        let_all_end(play, clock)
    check(play, [])


def test_batch_leaves_exactly_when_it_is_due_every_time():
    clock = ManualClock()
    with FormerRig(clock) as rig:
        play = Play(rig)
        for _ in range(100):
            for _ in range(2):
                one = request(clock.now_ns(), 200)
                play.requests.append(one)
                rig.former.arrive(one)
                play.sync()
            first = play.running[0]
            due_ns = int(first.formed_ns + rig.cost.mean_ns(1)) - 200_000
            clock.wait_for_sleeper(due_ns)
            assert len(play.running) == 1
            clock.advance(due_ns - clock.now_ns())
            second = rig.lanes[0].wait_for_batches(len(play.finished) + 2)[-1]
            assert second.formed_ns == due_ns
            clock.advance(40 * MS)
            for batch in play.running:
                play.finish(batch)
            play.sync()
