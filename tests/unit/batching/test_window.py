"""Triton's dynamic batcher, as golden traces: arrivals and departures with their times (ms).

Each trace is written `arrivals -> batches`; a lone lane with room for two batches, which the test frees at once by
default. Semantics: the dynamic batch scheduler of Triton's core (see docs/batching.md for the differences of the
default policy).
"""

import pytest

from forebay_server.service.batching.settings import BatchingSettings, QueuePolicy, TimeoutAction
from forebay_server.service.errors import Outcome
from tests.support.batching import MS, CoreRig, StrictLane, client, cost_model, stream

START_NS = 1_000_000_000


def play(arrivals, *, settings, until_ms=40.0, busy_until_ms=0.0, largest=8):
    """Run a trace of `(ms, options)`; return the batches as `(ms, [positions])` and the outcomes by position."""
    rig = CoreRig(settings, cost_model(largest), [StrictLane(slot_count=1)], START_NS)
    position = {}
    if busy_until_ms:
        rig.arrive(None, rows=settings.max_batch_size)
    blocker = list(rig.batches)
    steps = sorted([(at, options) for at, options in arrivals] + [(busy_until_ms, None), (until_ms, None)], key=first)
    for at_ms, options in steps:
        advance(rig, at_ms, blocker, busy_until_ms)
        if options is None:
            release(rig, blocker)
        else:
            one = rig.arrive(**({"budget_ms": None} | options))
            position[one.id] = len(position)
            release(rig, blocker if at_ms < busy_until_ms else [])
    batches = [b for b in rig.batches if b not in blocker]
    outcomes = {position[r.id]: outcome for r, outcome in rig.ended().items() if r.id in position}
    return [((b.formed_ns - START_NS) / MS, [position[r.id] for r in b.requests]) for b in batches], outcomes


def first(step):
    return step[0]


def release(rig, kept):
    while any(b not in kept for b in rig.running):
        rig.finish(next(b for b in rig.running if b not in kept))


def advance(rig, at_ms, blocker, busy_until_ms):
    end_ns = START_NS + int(at_ms * MS)
    while rig.wake_ns is not None and rig.wake_ns <= end_ns:
        rig.advance_to(rig.wake_ns)
        release(rig, blocker if rig.now_ns < START_NS + busy_until_ms * MS else [])
    rig.advance_to(end_ns)
    if at_ms >= busy_until_ms:
        release(rig, [])


def window(delay_ms=0.0, preferred=(), largest=8, **options):
    return BatchingSettings(
        largest, preferred, max_queue_delay_us=int(delay_ms * 1000), policy="window", **options
    )  # fmt: skip


def at(*instants, **options):
    return [(instant, options) for instant in instants]


TRACES = {
    "delay 0 holds nothing back": (
        {"settings": window()}, at(0, 1, 2),
        [(0, [0]), (1, [1]), (2, [2])],
    ),
    "delay 0, all requests that came while the lane was busy leave together": (
        {"settings": window(), "busy_until_ms": 5}, at(1, 2, 3),
        [(5, [0, 1, 2])],
    ),
    "delay counts from the oldest request": (
        {"settings": window(5)}, at(0, 2, 4),
        [(5, [0, 1, 2])],
    ),
    "a full batch does not wait": (
        {"settings": window(5, largest=4)}, at(0, 1, 2, 3, 4),
        [(3, [0, 1, 2, 3]), (9, [4])],
    ),
    "a preferred size leaves at once": (
        {"settings": window(5, (2, 4))}, at(0, 1, 2),
        [(1, [0, 1]), (7, [2])],
    ),
    "the largest preferred size that is there leaves": (
        {"settings": window(50, (2, 4)), "busy_until_ms": 6}, at(1, 2, 3, 4, 5),
        [(6, [0, 1, 2, 3])],
    ),
    "once the delay is over everything pending leaves, preferred or not": (
        {"settings": window(3, (2, 4)), "busy_until_ms": 6}, at(1, 2, 3, 4, 5),
        [(6, [0, 1, 2, 3, 4])],
    ),
    "delay 0 with preferred sizes takes the preferred part first": (
        {"settings": window(0, (2, 4)), "busy_until_ms": 6}, at(1, 2, 3),
        [(6, [0, 1]), (6, [2])],
    ),
    "what would take the batch over the largest preferred size stays behind": (
        {"settings": window(30, (2, 6))}, [(0, {"rows": 3}), (1, {"rows": 4})],
        [(1, [0]), (31, [1])],
    ),
    "a preferred size that was reached before counts more": (
        {"settings": window(30, (2, 6)), "busy_until_ms": 6}, [(1, {"rows": 2}), (2, {}), (3, {"rows": 4})],
        [(6, [0]), (32, [1, 2])],
    ),
    "delay 0 sends what stays behind as well, but not together": (
        {"settings": window(0, (2, 6)), "busy_until_ms": 6}, [(1, {"rows": 3}), (2, {"rows": 4})],
        [(6, [0]), (6, [1])],
    ),
    "once the delay is over a batch may be larger than every preferred size": (
        {"settings": window(3, (2, 6)), "busy_until_ms": 6}, [(1, {"rows": 3}), (2, {"rows": 4})],
        [(6, [0, 1])],
    ),
    "one request larger than every preferred size does not wait": (
        {"settings": window(30, (2, 6))}, [(0, {"rows": 7})],
        [(0, [0])],
    ),
    "whole requests only: one that does not fit ends the batch": (
        {"settings": window(5, largest=4)}, [(0, {"rows": 3}), (1, {"rows": 2})],
        [(1, [0]), (6, [1])],
    ),
    "a request of another shape ends the batch": (
        {"settings": window(5)}, [(0, {"key": "a"}), (1, {"key": "b"})],
        [(1, [0]), (6, [1])],
    ),
    "deadlines are ignored": (
        {"settings": window(5)}, [(0, {"budget_ms": 1})],
        [(5, [0])],
    ),
    "levels go in order of priority": (
        {"settings": window(0, priority_levels=2, default_priority_level=2, largest=2), "busy_until_ms": 5},
        [(1, {"priority": 2}), (2, {"priority": 1}), (3, {"priority": 0}), (4, {"priority": 1})],
        [(5, [1, 3]), (5, [0, 2])],
    ),
    "a batch may hold requests of several levels": (
        {"settings": window(0, priority_levels=2, default_priority_level=2), "busy_until_ms": 5},
        [(1, {"priority": 2}), (2, {"priority": 1})],
        [(5, [1, 0])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACES)
def test_14_golden_trace(name):
    options, arrivals, batches = TRACES[name]
    assert play(arrivals, **options) == (batches, {})


def test_14_queue_timeout_rejects_on_time():
    policy = QueuePolicy(TimeoutAction.REJECT, default_timeout_us=3_000)
    batches, outcomes = play(at(0), settings=window(5, default_queue_policy=policy))
    assert (batches, outcomes) == ([], {0: Outcome.EXPIRED})


def test_14_queue_timeout_under_delay_sends_the_request_behind_the_others():
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=3_000)
    batches, _ = play(at(1, 2, 4.5), settings=window(0, default_queue_policy=policy, largest=2), busy_until_ms=5)
    assert batches == [(5, [2, 0]), (5, [1])]


@pytest.mark.parametrize(
    ("policy", "timeout_ms", "is_rejected"),
    [
        (QueuePolicy(), 3, False),  # no default: Triton ignores the client's timeout
        (QueuePolicy(default_timeout_us=10_000), 3, False),  # not allowed
        (QueuePolicy(default_timeout_us=10_000, allow_timeout_override=True), 3, True),
        (QueuePolicy(default_timeout_us=2_000, allow_timeout_override=True), 20, True),  # longer: ignored
    ],
)
def test_14_client_timeout_counts_only_where_it_is_allowed_and_shorter(policy, timeout_ms, is_rejected):
    _, outcomes = play([(1, {"timeout_ms": timeout_ms})], settings=window(default_queue_policy=policy), busy_until_ms=6)
    assert bool(outcomes) is is_rejected


def test_14_default_policy_honours_a_client_timeout_that_triton_would_ignore():
    settings = BatchingSettings(8)
    _, outcomes = play([(1, {"timeout_ms": 3})], settings=settings, busy_until_ms=6)
    assert outcomes == {0: Outcome.EXPIRED}


def test_14_full_queue_refuses():
    settings = window(5, default_queue_policy=QueuePolicy(max_queue_size=2))
    batches, outcomes = play(at(1, 2, 3), settings=settings, busy_until_ms=5)
    assert outcomes == {2: Outcome.OVERLOADED}
    assert batches == [(6, [0, 1])]


def busy_lane(**options):
    """A rig whose only lane, with slots to spare, computes a full batch."""
    rig = CoreRig(window(largest=8, **options), cost_model(8, alpha_ms=1000.0), [StrictLane()], START_NS)
    rig.arrive(None, rows=8)
    assert len(rig.batches) == 1
    return rig


def test_14_max_queue_size_counts_all_that_wait_behind_the_batch_that_runs():
    rig = busy_lane(preferred=(4, 8), default_queue_policy=QueuePolicy(max_queue_size=8))
    calls = [rig.arrive(None) for _ in range(10)]
    assert rig.ended() == dict.fromkeys(calls[8:], Outcome.OVERLOADED)
    rig.advance(1000)
    assert [list(batch.requests) for batch in rig.finish()] == [calls[:8]]


def test_14_queue_timeout_reaches_all_that_wait_behind_the_batch_that_runs():
    rig = busy_lane(default_queue_policy=QueuePolicy(default_timeout_us=200_000))
    late = rig.arrive(None)
    rig.advance(200)
    assert rig.ended() == {late: Outcome.EXPIRED}


def test_14_urgent_request_overtakes_all_that_wait_behind_the_batch_that_runs():
    rig = busy_lane(priority_levels=2, default_priority_level=2)
    patient, urgent = rig.arrive(None, rows=8, priority=2), rig.arrive(None, priority=1)
    rig.advance(1000)
    assert [list(batch.requests) for batch in rig.finish()] == [[urgent]]
    rig.advance(1000)
    assert [list(batch.requests) for batch in rig.finish()] == [[patient]]


def test_14_without_policies_a_batch_is_bound_ahead():
    rig = busy_lane()
    ahead = rig.arrive(None)
    assert [list(batch.requests) for batch in rig.batches[1:]] == [[ahead]]


def test_14_queue_policy_of_a_level_goes_before_the_default_one():
    settings = window(
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(TimeoutAction.REJECT, default_timeout_us=2_000),
        priority_queue_policies={1: QueuePolicy(TimeoutAction.REJECT, default_timeout_us=4_000, max_queue_size=2)},
    )
    arrivals = [(1, {"priority": 1}), (1, {"priority": 2}), (2, {"priority": 1}), (2.5, {"priority": 1})]
    batches, outcomes = play(arrivals, settings=settings, busy_until_ms=5.5)
    assert outcomes == {0: Outcome.EXPIRED, 1: Outcome.EXPIRED, 3: Outcome.OVERLOADED}
    assert batches == [(5.5, [2])]


def test_14_order_within_a_stream_is_kept_though_the_later_request_is_more_urgent():
    settings = window(priority_levels=2, default_priority_level=2, largest=1)
    camera = stream()
    arrivals = [(1, {"priority": 2, "on": camera}), (2, {"priority": 1, "on": camera}), (3, {"priority": 1})]
    batches, _ = play(arrivals, settings=settings, busy_until_ms=5)
    order = [position for _, (position,) in batches]
    assert order.index(0) < order.index(1)


@pytest.mark.parametrize("lowest", [2, 2**32 + 1])
def test_14_an_urgent_request_makes_a_preferred_batch_with_the_oldest_of_its_client(lowest):
    settings = window(10_000, (4, 8), priority_levels=lowest, default_priority_level=lowest)
    caller = client()
    arrivals = [
        (0, {"rows": 2, "priority": 0, "on": caller}),
        (100, {"rows": 1, "priority": lowest, "on": caller}),
        (300, {"rows": 2, "priority": 1, "on": caller}),
    ]
    batches, outcomes = play(arrivals, settings=settings, until_ms=11_000.0)
    assert (batches, outcomes) == ([(300, [2, 0]), (10_100, [1])], {})


def test_14_levels_that_delay_and_reject_side_by_side():
    kind = {"default_timeout_us": 11_000_000, "allow_timeout_override": True}
    settings = window(
        10_000,
        (4, 8, 32),
        largest=32,
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(TimeoutAction.DELAY, **kind),
        priority_queue_policies={2: QueuePolicy(TimeoutAction.REJECT, **kind)},
    )
    caller = client()
    rows_level_timeout = [(2, 1, None), (1, 1, 1_000), (2, 1, None), (2, 2, 2_000), (3, 2, None), (6, 2, None)]
    arrivals = [
        (200 * position, {"rows": rows, "priority": level, "timeout_ms": timeout_ms, "on": caller})
        for position, (rows, level, timeout_ms) in enumerate(rows_level_timeout)
    ]
    batches, outcomes = play(arrivals, settings=settings, until_ms=12_000.0, largest=32)
    assert batches == [(1_200, [0, 2]), (2_600, [1, 4]), (11_000, [5])]
    assert outcomes == {3: Outcome.EXPIRED}


def test_14_a_delayed_request_holds_up_no_later_one_of_its_client():
    policy = QueuePolicy(TimeoutAction.DELAY, default_timeout_us=100_000)
    settings = window(10_000, (4, 8), default_queue_policy=policy)
    caller = client()
    arrivals = [(0, {"on": caller}), (200, {"rows": 2, "on": caller}), (200, {"rows": 2, "on": caller})]
    batches, outcomes = play(arrivals, settings=settings, until_ms=11_000.0)
    assert (batches, outcomes) == ([(200, [1, 2]), (10_000, [0])], {})


def test_eager_sends_whatever_is_pending():
    settings = BatchingSettings(8, (4,), max_queue_delay_us=5_000, policy="eager")
    assert play(at(0, 1), settings=settings)[0] == [(0, [0]), (1, [1])]
    assert play(at(1, 2, 3), settings=settings, busy_until_ms=5)[0] == [(5, [0, 1, 2])]
