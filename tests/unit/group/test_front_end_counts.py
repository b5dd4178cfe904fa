"""A group counts in two places, and the sums are those of a server of one process."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import BatchFailedError, CorruptResultError, Outcome, SupersededError
from forebay_server.service.group.engine_journal import GroupJournal, JournalReceiver
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.messages import Told
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.request import Completion, next_request_id
from tests.support.clock import ManualClock
from tests.support.requests import frame_request

ERRORS = {"failed": BatchFailedError("no"), "superseded": SupersededError("no")}
ENDS = ("ok", "cancelled", "cancelled and superseded", "corrupt", *ERRORS)
BATCHES = st.lists(st.lists(st.sampled_from(ENDS), min_size=1, max_size=5), max_size=8)


class TwoPlaces:
    """The counts of an engine process and of a front-end process, joined."""

    def __init__(self, clock):
        self.statistics = VersionStatistics(clock)
        self.counts = FrontEndCounts(7, clock)
        self._receiver = JournalReceiver(GroupJournal(None, {7: self.statistics}.get), None)

    def told(self):
        refusals, finished = self.counts.take_refusals(), self.counts.take_finished()
        self._receiver.on_told(Told(refusals=tuple(refusals), finished=tuple(finished)))
        counts = self.statistics.snapshot()
        counts.last_inference_ms = 0
        return counts


def request_of(batch, now_ns):
    request = frame_request(next_request_id(), None, arrival_ns=now_ns)
    times = request.timeline
    times.received_ns, times.formed_ns = now_ns - 5, now_ns + 11
    times.h2d_ns, times.execute_ns, times.d2h_ns = 10 + batch, 20 + batch, 30 + batch
    return request


def executed(request, end):
    """A completion as the engine process has it."""
    error = ERRORS.get(end.removeprefix("cancelled and "))
    return Completion(request, error, None if error else ())


@given(BATCHES, st.data())
def test_both_forms_count_alike_however_requests_end(batches, data):
    clock = ManualClock(10**9)
    two, one = TwoPlaces(clock), VersionStatistics(clock)
    for number, ends in enumerate(batches):
        clock.advance(100)
        requests = [request_of(number, clock.now_ns()) for _ in ends]
        completions = [executed(request, end) for request, end in zip(requests, ends, strict=True)]
        for request in requests:
            request.counts_late = True
        two.statistics.observe(completions)
        clock.advance(7)
        for end, completion in zip(ends, completions, strict=True):  # counts that only the front-end process has
            completion.request.counts_late = False
            completion.request.is_cancelled = end.startswith("cancelled")
            if end == "corrupt":
                completion.error = CorruptResultError("no result")
        two.counts.observe(completions)
        one.observe(completions)
        if data.draw(st.booleans()):
            two.told()
    expected = one.snapshot()
    expected.last_inference_ms = 0
    assert two.told() == expected


def test_refusals_are_told_once():
    clock = ManualClock(10**9)
    two = TwoPlaces(clock)
    two.counts.refuse(Outcome.OVERLOADED, clock.now_ns() - 40)
    assert two.told().fail.count == 1
    counts = two.told()
    assert (counts.fail.count, counts.fail.ns) == (1, 40)
