"""A session under any order of events: every frame is answered once and in order, and every lease comes back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import BatchFailedError, Outcome
from forebay_server.service.request import Feasibility
from tests.support.front_end import SessionHarness, by_reason

PERMITS = 3
LEAST_SERVICE_NS = 1_000_000
TIMINGS = ("receive_us", "decode_us", "queue_us", "h2d_us", "execute_us", "d2h_us", "deliver_us")
OPENS = st.fixed_dictionaries(
    {
        "delivery": st.sampled_from([pb.DELIVERY_LATEST, pb.DELIVERY_EVERY]),
        "max_in_flight": st.integers(1, 4),
        "latency_budget_ms": st.sampled_from([5, 1000]),
    }
)
WORKER = {"encoding": pb.ENCODING_RGB8, "width": 6, "height": 6}


class SessionRules(RuleBasedStateMachine):
    @initialize(fields=OPENS, on_worker=st.booleans())
    def open(self, fields, on_worker):
        self.harness = SessionHarness(permits=PERMITS, **fields, **(WORKER if on_worker else {}))
        self.harness.version.feasibility = Feasibility(LEAST_SERVICE_NS)
        self.is_every = fields["delivery"] == pb.DELIVERY_EVERY
        self.capacity = fields["max_in_flight"] * (1 if self.is_every else 2)
        self.next_seq = 0
        self.sent: list[tuple[int, str]] = []  # seq and its fault
        self.is_reading = True
        self.is_abandoned = False
        self.wakes_seen = 0  # of the writer
        self.is_writer_awake = True
        self.calls_at_abandon = 0

    # --- the reader -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_reading and self.harness.session.has_room)
    @rule(step=st.integers(1, 3), wrong=st.sampled_from(["", "", "", "", "seq", "size", "budget", "late"]))
    def read_frame(self, step, wrong):
        seq = self.next_seq + step
        if wrong == "seq":
            seq = max(0, self.next_seq - 1) if self.next_seq else None
        if seq is None:
            return
        self.next_seq = max(self.next_seq, seq + 1)
        payload = b"?" if wrong == "size" else None
        budget_ms = {"budget": float("nan"), "late": LEAST_SERVICE_NS / 1e6 / 2}.get(wrong)
        self.sent.append((seq, wrong))
        self.harness.send(seq, payload, budget_ms)

    @precondition(lambda self: self.is_reading)
    @rule()
    def stop_reading(self):
        self.is_reading = False
        self.harness.session.stop_reading()

    @precondition(lambda self: not self.is_abandoned)
    @rule()
    def abandon(self):
        self.is_reading = False
        self.is_abandoned = True
        self.harness.session.abandon()
        self.calls_at_abandon = self.harness.output_calls

    # --- workers, former, lanes, loop -----------------------------------------------------------------------------

    @precondition(lambda self: self.harness.pool.ring)
    @rule(meanwhile=st.sampled_from(["nothing", "abandon", "read", "stop", "write"]))
    def work(self, meanwhile):
        if meanwhile == "abandon" and not self.is_abandoned:
            self.harness.version.arena.on_write = self.abandon
        elif meanwhile == "read" and self.is_reading and self.harness.session.has_room:
            self.harness.version.arena.on_write = lambda: self.read_frame(1, "")
        elif meanwhile == "stop" and self.is_reading:
            self.harness.version.arena.on_write = self.stop_reading
        elif meanwhile == "write":
            self.harness.version.arena.on_write = self.write
        self.harness.pool.run_one()
        self.harness.version.arena.on_write = None

    @precondition(lambda self: self.harness.version.pending)
    @rule()
    def form(self):
        self.harness.version.form()

    @precondition(lambda self: self.harness.version.executing)
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data, fails):
        index = data.draw(st.integers(0, len(self.harness.version.executing) - 1))
        self.harness.version.finish(index, BatchFailedError("the model failed") if fails else None)

    @precondition(lambda self: self.harness.sink.posted)
    @rule()
    def drain(self):
        self.harness.sink.drain()

    @rule(ns=st.sampled_from([1, 1_000_000, 5_000_000]))
    def advance(self, ns):
        self.harness.clock.advance(ns)

    # --- the writer -----------------------------------------------------------------------------------------------

    @rule()
    def write(self):
        """One pass of the writer: as in the servicer, it sleeps only after it found nothing."""
        self.wakes_seen = self.harness.output_calls
        had_room = self.harness.session.has_room
        rooms = self.harness.room_calls
        self.harness.write()
        self.is_writer_awake = False
        if not had_room and self.harness.session.has_room:
            assert self.harness.room_calls > rooms, "the reader sleeps on although there is room"

    # --- what holds always ----------------------------------------------------------------------------------------

    @invariant()
    def the_outbox_counts_what_was_read_and_not_written(self):
        session = self.harness.session
        in_flight = 0 if self.is_abandoned else len(self.sent) - len(self.harness.results)
        assert session.in_flight == in_flight
        assert session.has_room == (in_flight < self.capacity)
        assert in_flight <= self.capacity
        assert session.frames_received == len(self.sent)
        assert session.is_finished == (not self.is_reading and in_flight == 0)

    @invariant()
    def results_are_a_prefix_of_what_was_sent(self):
        assert [r.seq for r in self.harness.results] == [seq for seq, _ in self.sent[: len(self.harness.results)]]

    @invariant()
    def the_writer_is_awake_when_there_is_something_to_write(self):
        is_asleep = not self.is_writer_awake and self.wakes_seen == self.harness.output_calls
        if is_asleep and not self.is_abandoned:
            outbox = self.harness.session._outbox
            assert not outbox or outbox[0].answer is None

    @invariant()
    def nothing_comes_after_abandon(self):
        if self.is_abandoned:
            assert self.harness.output_calls == self.calls_at_abandon
            assert self.harness.session.next_message() is None

    def teardown(self):
        if not hasattr(self, "harness"):
            return
        harness = self.harness
        if self.is_reading:
            self.stop_reading()
        harness.settle()
        assert harness.session.is_finished
        assert not harness.version.arena.leases, "a lease was lost"
        assert sum(harness.session.outcomes.values()) == len(self.sent)
        assert by_reason(harness.session.outcomes) == harness.version.counted, "the journal and the statistics disagree"
        if not self.is_abandoned:
            assert len(harness.results) == len(self.sent)
            counted = sum(count for outcome, count in harness.session.outcomes.items() if outcome is Outcome.OK)
            assert counted == sum(r.status.code == pb.STATUS_OK for r in harness.results)
        newest = max((seq for seq, _ in self.sent), default=0)
        for result, (seq, wrong) in zip(harness.results, self.sent, strict=False):
            self.check_result(result, seq, wrong, newest)

    def check_result(self, result, seq, wrong, newest):
        assert result.capture_time_us == -seq
        assert sum(getattr(result.timings, name) for name in TIMINGS) == result.timings.server_total_us
        code = result.status.code
        if wrong in {"seq", "size", "budget"}:
            assert code == pb.STATUS_INVALID
        elif wrong == "late":
            assert code == pb.STATUS_EXPIRED
        else:
            possible = {pb.STATUS_OK, pb.STATUS_FAILED, pb.STATUS_OVERLOADED, pb.STATUS_EXPIRED}
            assert code in possible | (set() if self.is_every else {pb.STATUS_SUPERSEDED})
        if code == pb.STATUS_OK:
            assert set(result.tensors[0].data) == {seq % 251}, "pixels of another frame"
        if code == pb.STATUS_SUPERSEDED:
            assert seq < newest


SessionRules.TestCase.settings = settings(stateful_step_count=40)
TestSessionRules = SessionRules.TestCase
