"""The one way in: an arrival becomes a request with the former, or ends here and is counted once."""

import re

import pytest

from forebay_server.service.errors import DeadlineExpiredError, Outcome, OverloadedError
from forebay_server.service.frontend.admission import Admission, Arrival, cancel
from forebay_server.service.journal.events import Journal, RequestJournal
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Delivery, Feasibility, StreamKey, Timeline
from forebay_server.service.results.wants import Wants
from tests.support.clock import ManualClock
from tests.support.front_end import ManualVersion
from tests.support.repository import ROOT


class Rig:
    def __init__(self, permits=2):
        self.clock = ManualClock()
        self.version = ManualVersion(self.clock, permits=permits)
        self.admission = Admission(self.clock)
        self.stream, self.share = StreamKey("camera", Delivery.EVERY), Share()

    def arrival(self, **fields):
        return Arrival(
            version=self.version,
            stream=self.stream,
            rows=1,
            batch_key=None,
            deadline_ns=fields.pop("deadline_ns", None),
            priority=1,
            fill=fields.pop("fill", lambda: self.version.arena.lease(self.share)),
            on_completion=lambda completion: None,
            timeline=Timeline(received_ns=self.clock.now_ns()),
            wants=Wants(options=None, tensor_indices=()),
            **fields,
        )

    def failures(self):
        return dict(self.version.statistics.snapshot().failures)


def test_an_arrival_is_a_request_with_the_former_once_it_was_entered():
    rig = Rig()
    request = rig.admission.take(rig.arrival(), "too late")
    assert rig.version.pending == {}
    assert rig.version.arena.leases == [request.frame]
    rig.admission.enter(rig.version, request)
    assert rig.version.pending == {request.id: request}
    assert rig.failures() == {}


def test_a_deadline_that_cannot_be_met_is_refused_before_a_permit_is_taken():
    rig = Rig()
    rig.version.feasibility = Feasibility(least_service_ns=10)
    late = rig.arrival(deadline_ns=rig.clock.now_ns() + 9)
    with pytest.raises(DeadlineExpiredError, match="too late"):
        rig.admission.take(late, "too late")
    assert rig.version.arena.leases == []


def test_what_decoding_takes_counts_towards_the_deadline():
    rig = Rig()
    deadline_ns = rig.clock.now_ns() + 10
    taken = rig.admission.take(rig.arrival(deadline_ns=deadline_ns, decode_ns=10), "too late")
    assert taken.deadline_ns == deadline_ns
    with pytest.raises(DeadlineExpiredError):
        rig.admission.take(rig.arrival(deadline_ns=deadline_ns, decode_ns=11), "too late")


def test_what_the_buffer_is_refused_for_reaches_the_caller():
    rig = Rig(permits=0)
    with pytest.raises(OverloadedError):
        rig.admission.take(rig.arrival(), "too late")


def test_a_former_that_takes_nothing_leaves_no_buffer_behind():
    rig = Rig()

    def fail(request):
        raise MemoryError

    request = rig.admission.take(rig.arrival(), "too late")
    rig.version.arrive_on_loop = fail
    with pytest.raises(MemoryError):
        rig.admission.enter(rig.version, request)
    assert rig.version.arena.leases == []


def test_a_request_that_is_given_up_gives_its_buffer_back_and_counts_once():
    rig = Rig()
    request = rig.admission.take(rig.arrival(), "too late")
    rig.admission.give_up(rig.version, request, Outcome.SUPERSEDED)
    assert rig.version.arena.leases == []
    assert rig.failures() == {"REJECTED": 1}


def test_a_refusal_counts_once_and_the_journal_receives_it_only_if_it_was_given():
    rig = Rig()
    journal = Journal()
    requests = RequestJournal(journal, "m", "1", rig.clock)
    rig.admission.refuse(rig.version, Outcome.INVALID, rig.clock.now_ns())
    assert list(journal.frames) == []
    rig.admission.refuse(rig.version, Outcome.OVERLOADED, rig.clock.now_ns(), requests, {"traceparent": "t"})
    assert rig.failures() == {"OTHER": 1, "REJECTED": 1}
    (event,) = journal.frames
    assert (event.stream.model, event.outcome, event.trace) == ("m", Outcome.OVERLOADED, {"traceparent": "t"})


def test_a_cancellation_names_only_requests_that_hold_a_permit_and_each_once():
    rig = Rig()
    waiting, ended = (rig.admission.take(rig.arrival(), "too late") for _ in range(2))
    for request in (waiting, ended):
        rig.admission.enter(rig.version, request)
    rig.version.pending.pop(ended.id).frame.release()
    cancel(rig.version, [waiting, ended])
    assert waiting.is_cancelled
    assert ended.is_cancelled
    cancel(rig.version, [waiting, ended])  # ManualVersion refuses a second naming
    assert rig.version.pending == {}


def test_no_other_part_of_the_front_end_makes_requests_or_counts_refusals():
    only_here = re.compile(r"\bRequest\(|\.arrive(_on_loop)?\(|statistics\.refuse\(|\.refused\(")
    files = [path for path in (ROOT / "service/frontend").rglob("*.py") if only_here.search(path.read_text())]
    assert [path.name for path in files] == ["admission.py"]
