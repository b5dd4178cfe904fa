"""Answers leave a stream's outbox in the order of its frames, even if later frames end first, and each once."""

import gc
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.outbox import Outbox, Place
from forebay_server.service.request import Completion, Delivery, Request, StreamKey

KEY = StreamKey("camera", Delivery.EVERY)


def request_of(place, number):
    return Request(number, KEY, 1, None, None, 0, 1, None, lambda completion: None, timeline=place.timeline)


class OutboxMachine(RuleBasedStateMachine):
    """The model is a list of frames in order, each with its request's id or None, and whether it has an answer."""

    def __init__(self):
        super().__init__()
        self.capacity = 3
        self.outbox = Outbox(self.capacity)
        self.frames = []  # [place, request, is answered], those taken left out
        self.taken, self.read = [], 0

    def unanswered(self, *, with_request):
        return [f for f in self.frames if not f[2] and (f[1] is not None) is with_request]

    @precondition(lambda self: len(self.frames) < self.capacity)
    @rule(becomes_request=st.booleans())
    def a_frame_is_read(self, becomes_request):
        self.read += 1
        place = Place(self.read, 0, self.read)
        self.outbox.add(place)
        request = request_of(place, 100 + self.read) if becomes_request else None
        if request is not None:
            self.outbox.enter(place, request)
        self.frames.append([place, request, False])

    @precondition(lambda self: self.unanswered(with_request=True))
    @rule(data=st.data())
    def a_request_ends(self, data):
        frame = data.draw(st.sampled_from(self.unanswered(with_request=True)))
        place, request, _ = frame
        assert self.outbox.ended(request.id) is place
        assert self.outbox.ended(request.id) is None, "a request ends once"
        place.answer = Completion(request)
        frame[2] = True

    @precondition(lambda self: self.unanswered(with_request=False))
    @rule(data=st.data())
    def a_frame_is_refused(self, data):
        frame = data.draw(st.sampled_from(self.unanswered(with_request=False)))
        frame[0].answer = InvalidRequestError("wrong")
        frame[2] = True

    @rule()
    def the_writer_takes(self):
        place = self.outbox.take()
        if self.frames and self.frames[0][2]:
            assert place is self.frames.pop(0)[0]
            self.taken.append(place.seq)
        else:
            assert place is None

    @rule()
    def the_client_leaves(self):
        unanswered, requests = self.outbox.clear()
        assert unanswered == sum(not is_answered for *_, is_answered in self.frames)
        assert requests == [request for _, request, _ in self.unanswered(with_request=True)]
        for _, request, _ in self.unanswered(with_request=True):
            assert self.outbox.ended(request.id) is None
        self.taken += [place.seq for place, *_ in self.frames]
        self.frames.clear()

    @invariant()
    def it_holds_what_was_read_and_not_taken(self):
        assert list(self.outbox) == [place for place, *_ in self.frames]
        assert self.outbox.has_room == (len(self.frames) < self.capacity)
        assert self.frames or self.outbox.first is None
        for index, (place, *_) in enumerate(self.frames):
            assert (self.outbox.first is place) == (index == 0)

    @invariant()
    def frames_leave_in_order_and_once(self):
        assert self.taken == list(range(1, len(self.taken) + 1))


TestOutbox = OutboxMachine.TestCase


def test_an_answer_that_was_taken_is_freed_without_the_collector_of_cycles():
    outbox = Outbox(2)
    place = Place(1, 0, 1)
    outbox.add(place)
    request = request_of(place, 7)
    outbox.enter(place, request)
    place.answer = Completion(request)
    assert outbox.ended(7) is place
    held = [weakref.ref(place.answer.request.on_completion)]
    del request, place
    gc.disable()
    try:
        taken = outbox.take()
        del taken
        assert [each() for each in held] == [None]
    finally:
        gc.enable()
