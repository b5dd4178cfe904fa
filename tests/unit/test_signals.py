"""Which signals are one request to stop, and which are listened to."""

import asyncio
import os
import select
import signal

import pytest

from forebay_server.service.signals import (
    LOG_SIGNALS,
    ONE_REQUEST_NS,
    STOP_SIGNALS,
    SignalInbox,
    StopRequest,
    StopRequests,
    listen,
)
from tests.support.clock import ManualClock


def test_the_first_request_drains_and_one_after_a_second_ends_at_once():
    clock = ManualClock()
    requests = StopRequests(clock)
    asked = []
    for wait_ns in (0, 1, ONE_REQUEST_NS - 2, 1, 0, ONE_REQUEST_NS):
        clock.advance(wait_ns)
        asked.append(requests.take())
    nothing, at_once = StopRequest.NOTHING_NEW, StopRequest.END_AT_ONCE
    assert asked == [StopRequest.DRAIN, nothing, nothing, at_once, at_once, at_once]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_the_end_of_the_terminal_is_ignored_under_nohup_and_only_there(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with SignalInbox() as inbox:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            select.select([inbox], [], [])
            heard = inbox.read()
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
    expected = [signal.SIGTERM] if handler == signal.SIG_IGN else [signal.SIGHUP, signal.SIGTERM]
    assert heard == expected


@pytest.mark.parametrize(("wait_ns", "is_ignored"), [(ONE_REQUEST_NS - 1, True), (ONE_REQUEST_NS, False)])
def test_the_rest_of_a_request_is_ignored_until_the_process_has_ended(wait_ns, is_ignored):
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, *LOG_SIGNALS)}
    clock = ManualClock()
    requests = StopRequests(clock)
    try:
        with SignalInbox():
            requests.take()
            clock.advance(wait_ns)
            requests.ignore_rest()
        stop = {signal.getsignal(number) for number in STOP_SIGNALS}
        assert stop == ({signal.SIG_IGN} if is_ignored else {before[number] for number in STOP_SIGNALS})
        assert {signal.getsignal(number) for number in LOG_SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_loop_that_ends_leaves_the_rest_of_a_request_ignored():
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, *LOG_SIGNALS)}
    requests = StopRequests(ManualClock())

    async def end_at_once():
        loop = asyncio.get_running_loop()
        listen(loop, lambda _: requests.take(), lambda _: None)
        requests.take()
        requests.ignore_rest(loop)

    try:
        asyncio.run(end_at_once())
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_inbox_that_is_left_leaves_nothing_behind():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    with SignalInbox() as inbox:
        assert inbox.read() == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)] == before
    assert signal.set_wakeup_fd(-1) == -1
