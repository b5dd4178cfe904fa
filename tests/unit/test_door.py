"""Streams that come while there is no room are sent on, but none for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.route import ATTEMPT_KEY
from forebay.client.route import MOST_SENT_ON as CLIENTS_MOST
from forebay_server.service.load.door import ATTEMPT_KEYS, CLOSED_NS, MOST_SENT_ON, Door, attempt_of


@given(st.booleans(), st.integers(0, 10), st.integers(0, 2 * CLOSED_NS))
def test_a_stream_is_sent_on_only_while_it_is_tried_again_and_there_is_a_reason(has_room, attempt, now_ns):
    door = Door()
    assert not door.sends_on(attempt, now_ns)
    door.has_room = has_room
    door.asked(0)
    assert door.sends_on(attempt, now_ns) == (0 < attempt <= 3 and (not has_room or now_ns < CLOSED_NS))


@pytest.mark.parametrize(
    ("metadata", "attempt"),
    [
        ((), 0),
        ((("x-envoy-attempt-count", "2"),), 2),
        ((("forebay-attempt", "4"), ("x-envoy-attempt-count", "1"), ("other", "9")), 4),
        ((("forebay-attempt", "first"), ("x-envoy-attempt-count", "-1")), 0),
        ((("forebay-attempt", "²"), ("x-envoy-attempt-count", "9" * 5000)), 0),
        ((("forebay-attempt", b"3"),), 0),
    ],
)
def test_a_call_says_which_attempt_it_is(metadata, attempt):
    assert attempt_of(metadata) == attempt


def test_the_client_and_the_server_agree():
    assert ATTEMPT_KEY in ATTEMPT_KEYS
    assert CLIENTS_MOST == MOST_SENT_ON
