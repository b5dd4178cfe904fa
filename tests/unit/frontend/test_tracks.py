"""Results of a stream are tracked in its order, by one worker at a time, and frames without results are passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import SupersededError
from forebay_server.service.frontend.frames.outbox import Place
from forebay_server.service.frontend.frames.track_request import TrackRequest
from forebay_server.service.frontend.frames.tracks import STATE_INTERVAL_NS, open_tracks
from forebay_server.service.request import Completion
from forebay_server.service.results.detection import Box, Detection
from forebay_server.service.tracks.settings import TrackSettings
from tests.support.clock import ManualClock
from tests.support.front_end import ManualPool, ManualSink
from tests.support.requests import frame_request

FRAME_US = 33_000


class Stream:
    """Places of a stream and their answers, as a session has them."""

    def __init__(self, state=b""):
        self.clock, self.pool, self.sink = ManualClock(), ManualPool(), ManualSink()
        request = TrackRequest(TrackSettings(), least_score=0.5, state=state)
        self.tracks = open_tracks(request, self.pool, self.sink, self.clock)
        self.tracks.on_tracked = self.answer
        self.answered = []
        self.count = 0

    def answer(self, place, completion):
        place.answer = completion
        self.answered.append(place.seq)
        self.tracks.go_on()

    def add(self):
        self.count += 1
        place = Place(self.count, self.count * FRAME_US, self.count * FRAME_US * 1000)
        self.tracks.add(place)
        return place

    def come(self, place, *found, error=None):
        completion = Completion(frame_request(place.seq, None, arrival_ns=0), error=error)
        completion.result = None if error else found
        self.tracks.came(place, completion)

    def settle(self):
        while self.pool.run_one() or self.sink.posted:
            self.sink.drain()


def person(x=0.0, score=0.9):
    box = Box(x, 0.0, x + 50.0, 100.0)
    return Detection("person", 0, score, box, box)


def ids(place):
    return [item.track_id for item in place.answer.result]


def state(place):
    return pb.Result.FromString(place.answer.encoded).track_state


def seen(stream, *found):
    """The place of one more frame, tracked."""
    place = stream.add()
    stream.come(place, *found)
    stream.settle()
    return place


def test_an_object_has_its_id_from_the_second_frame_on():
    stream = Stream()
    assert [ids(seen(stream, person(x), person(x + 300))) for x in (0, 3, 6)] == [[0, 0], [1, 2], [1, 2]]


@given(st.permutations(range(6)), st.lists(st.sampled_from(["result", "error", "refused"]), min_size=6, max_size=6))
def test_results_of_any_order_are_tracked_in_the_order_of_the_stream(order, kinds):
    stream, alone = Stream(), Stream()
    places = [stream.add() for _ in kinds]
    for index in order:
        if kinds[index] == "refused":
            places[index].answer = SupersededError("a newer frame came")
            stream.tracks.go_on()
        else:
            error = SupersededError("a newer frame came") if kinds[index] == "error" else None
            stream.come(places[index], person(3.0 * index), error=error)
        if index % 2:
            stream.settle()
    stream.settle()
    tracked = [place for place, kind in zip(places, kinds, strict=True) if kind == "result"]
    assert all(place.answer is not None for place in places)
    assert [seq for seq in stream.answered if kinds[seq - 1] == "result"] == [place.seq for place in tracked]
    expected = []
    for index, kind in enumerate(kinds):
        place = alone.add()
        if kind == "result":
            alone.come(place, person(3.0 * index))
            alone.settle()
            expected.append(ids(place))
        else:
            place.answer = SupersededError("a newer frame came")
    assert [ids(place) for place in tracked] == expected


def test_one_worker_at_a_time_has_the_tracker_and_takes_all_that_wait():
    stream = Stream()
    places = [stream.add() for _ in range(5)]
    stream.come(places[0], person())
    for place in places[1:]:
        stream.come(place, person())
    assert len(stream.pool.results) == 1
    assert stream.pool.run_one()
    stream.sink.drain()
    assert len(stream.pool.results) == 1
    stream.settle()
    assert stream.answered == [1, 2, 3, 4, 5]


def test_scores_below_the_streams_threshold_are_tracked_and_not_sent():
    stream = Stream()
    for _ in range(2):
        seen(stream, person())
    hidden = seen(stream, person(score=0.3))
    assert ids(hidden) == []
    assert not pb.Result.FromString(hidden.answer.encoded).detections
    assert ids(seen(stream, person())) == [1]


def test_a_state_comes_first_then_after_the_interval_then_always_at_the_end():
    stream = Stream()
    assert state(seen(stream, person()))
    stream.clock.advance(STATE_INTERVAL_NS - 1)
    assert not state(seen(stream, person()))
    stream.clock.advance(1)
    assert state(seen(stream, person()))
    assert not state(seen(stream, person()))
    stream.tracks.end_soon()
    assert state(seen(stream, person()))


def test_ids_go_on_at_another_server():
    first = Stream()
    seen(first, person())
    first.tracks.end_soon()
    last = seen(first, person())
    second = Stream(state(last))
    second.count = first.count
    assert second.tracks.is_continued
    assert ids(seen(second, person())) == ids(last) == [1]


@pytest.mark.parametrize("damage", [b"", b"FBTR", b"\xff" * 500])
def test_a_state_that_cannot_be_read_begins_anew(damage):
    stream = Stream(damage)
    assert not stream.tracks.is_continued
    assert [ids(seen(stream, person())) for _ in range(2)] == [[0], [1]]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_state_or_begin_anew(data):
    stream = Stream(data)
    assert len(ids(seen(stream, person()))) == 1


def test_a_stream_whose_client_has_gone_takes_nothing_back():
    stream = Stream()
    place, later = stream.add(), stream.add()
    stream.come(place, person())
    stream.come(later, person())
    stream.tracks.clear()
    stream.settle()
    assert stream.answered == []
    assert place.answer is None
