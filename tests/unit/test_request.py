"""Durations of a request's stages: whole microseconds that add up, for any reached stage."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.request import TRUSTED_NS, Feasibility, Timeline

START_NS = 5_000_000_123
SPANS = st.integers(0, 10**10)
BOUNDARIES = ("received_ns", "validated_ns", "admitted_ns", "formed_ns", "readable_ns", "built_ns")


@st.composite
def timelines(draw):
    """A timeline whose request got as far as any stage; the result was built at last."""
    instants = [START_NS]
    for span in draw(st.lists(SPANS, min_size=5, max_size=5)):
        instants.append(instants[-1] + span)
    timeline = Timeline(**dict(zip(BOUNDARIES, instants, strict=True)))
    for name in BOUNDARIES[draw(st.integers(1, 5)) : -1]:
        setattr(timeline, name, 0)
    if draw(st.booleans()):  # its fate was decided long before its turn came
        timeline.readable_ns = instants[-2]
    if timeline.formed_ns:
        timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns = draw(st.tuples(SPANS, SPANS, SPANS))
    return timeline


@given(timelines())
def test_durations_add_up_exactly_and_are_never_negative(timeline):
    durations = asdict(timeline.durations_us())
    total = durations.pop("total")
    assert total == timeline.built_ns // 1000 - timeline.received_ns // 1000
    assert sum(durations.values()) == total
    assert min(durations.values()) >= 0


@given(timelines())
def test_a_request_never_formed_has_no_device_time(timeline):
    durations = timeline.durations_us()
    if not timeline.formed_ns:
        assert (durations.h2d, durations.execute, durations.d2h) == (0, 0, 0)


def test_gaps_between_device_stages_count_as_queue():
    timeline = Timeline(1_000, 2_000, 4_000, 8_000, 64_000, 128_000, h2d_ns=5_000, execute_ns=20_000, d2h_ns=7_000)
    durations = timeline.durations_us()
    assert durations == type(durations)(
        receive=1, decode=2, queue=60 - 32, h2d=5, execute=20, d2h=7, deliver=64, total=127
    )


def test_execution_gives_way_first_where_device_and_host_clocks_disagree():
    timeline = Timeline(1_000, 1_000, 1_000, 1_000, 11_000, 11_000, h2d_ns=4_000, execute_ns=5_000, d2h_ns=3_000)
    durations = timeline.durations_us()
    assert (durations.queue, durations.h2d, durations.execute, durations.d2h) == (0, 4, 3, 3)


def test_a_request_that_never_reached_a_stage_spent_nothing_in_it():
    refused = Timeline(received_ns=1_000, readable_ns=3_000, built_ns=9_000).durations_us()
    assert (refused.receive, refused.decode, refused.queue, refused.deliver, refused.total) == (2, 0, 0, 6, 8)
    expired = Timeline(received_ns=1_000, validated_ns=2_000, admitted_ns=4_000, built_ns=9_000).durations_us()
    assert (expired.receive, expired.decode, expired.queue, expired.deliver) == (1, 2, 5, 0)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 3 * 10**6))
def test_hopeless_means_late_even_alone(now_ns, decode_ns, least_service_ns, deadline_ns):
    is_late = now_ns + decode_ns + least_service_ns > deadline_ns
    assert Feasibility(least_service_ns).is_hopeless(now_ns, deadline_ns, decode_ns) == is_late
    assert not Feasibility(least_service_ns).is_hopeless(now_ns, None, decode_ns)


@pytest.mark.parametrize(("now_ns", "is_refused"), [(TRUSTED_NS + 5, True), (TRUSTED_NS + 6, False)])
def test_what_was_learnt_refuses_nothing_once_nothing_was_executed_for_long(now_ns, is_refused):
    feasibility = Feasibility(least_service_ns=100, egress_ns=100, executed_ns=5)
    assert feasibility.is_hopeless(now_ns, now_ns + 199, 0) == is_refused
    assert feasibility.is_hopeless(now_ns, now_ns + 5, 6), (
        "what still has to be decoded until then is late all the same"
    )
