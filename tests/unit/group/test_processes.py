"""One engine process and its front-end processes: when they start and end, and the exit code. Without any process."""

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.group.processes import ENGINE, EXIT_FATAL, ProcessGroup
from forebay_server.service.group.restarts import LONGEST_PAUSE_NS, MOST_RESTARTS, WINDOW_NS
from forebay_server.service.parent import END_LIMIT_NS
from forebay_server.service.signals import ONE_REQUEST_NS
from tests.support.clock import ManualClock


class Child:
    def __init__(self):
        self.signals = []

    def send_signal(self, sig):
        self.signals.append(sig)


class Rig:
    """A group whose processes are started as soon as they are wanted."""

    def __init__(self, size=2, *, starts=True, engines=1):
        self.ready, self.passed, self.said = [], [], []
        self.clock = ManualClock()
        self.is_engine_ending = False
        self.group = ProcessGroup(
            size,
            lambda *lines: self.ready.append(lines),
            self.passed.append,
            self.said.append,
            self.clock,
            lambda: self.is_engine_ending,
            engines,
        )
        self.running = {}
        if starts:
            self.start()

    def start(self):
        started = []
        while wanted := self.group.wanted:
            for index in wanted:
                self.running[index] = Child()
                self.group.add(index, self.running[index])
                started.append(index)
        return started

    def pause(self):
        """Let the time pass that the group asks for, and return it."""
        pause_s = self.group.pause_s()
        self.clock.advance(round((pause_s or 0) * 1e9))
        return pause_s

    def says_ready(self, *indices):
        for index in indices:
            self.group.on_line(index, json.dumps({"event": "ready", "pid": 100 + index}))

    def ends(self, index, code):
        child = self.running.pop(index)
        self.group.on_end(index, code)
        return child


def serving(size=2, engines=1):
    rig = Rig(size, engines=engines)
    rig.says_ready(*(ENGINE - engine for engine in range(engines)), *range(size))
    return rig


def test_several_engine_processes_are_all_started_and_waited_for():
    rig = Rig(engines=2, starts=False)
    assert rig.start() == [ENGINE, ENGINE - 1, 0, 1]
    rig.says_ready(ENGINE, 0, 1)
    assert not rig.ready
    rig.says_ready(ENGINE - 1)
    assert [[[each["pid"] for each in lines] for lines in both] for both in rig.ready] == [[[99, 98], [100, 101]]]


@pytest.mark.parametrize("code", [70, -signal.SIGKILL, 3, 0])
@pytest.mark.parametrize("engine", [ENGINE, ENGINE - 1])
def test_one_of_several_engine_processes_is_started_anew_and_nothing_else_ends(engine, code):
    rig = serving(engines=2)
    rig.ends(engine, code)
    assert rig.start() == [engine]
    assert not rig.group.is_stopping
    assert not any(child.signals for child in rig.running.values())
    assert "starting it anew" in rig.said[0]
    rig.group.stop(signal.SIGTERM)
    for index in (0, 1, ENGINE, ENGINE - 1):
        rig.ends(index, 0)
    assert rig.group.exit_code == 0


def test_one_of_several_engine_processes_that_cannot_start_ends_the_group_with_its_code():
    rig = Rig(engines=2)
    rig.says_ready(ENGINE)
    rig.ends(ENGINE - 1, 3)
    assert rig.running[0].signals == rig.running[ENGINE].signals == [signal.SIGTERM]
    for index in (0, 1, ENGINE):
        rig.ends(index, 0)
    assert rig.group.exit_code == 3


def test_one_of_several_engine_processes_that_ends_again_and_again_ends_the_group():
    rig = serving(engines=2)
    for _ in range(MOST_RESTARTS):
        rig.ends(ENGINE - 1, 70)
        rig.pause()
        assert rig.start() == [ENGINE - 1]
    rig.ends(ENGINE - 1, 70)
    assert rig.group.is_stopping
    assert rig.group.exit_code == EXIT_FATAL


def test_the_engine_process_starts_first_and_the_others_beside_it():
    rig = Rig(starts=False)
    assert rig.group.wanted == [ENGINE, 0, 1]
    assert rig.start() == [ENGINE, 0, 1]


@pytest.mark.parametrize("order", [(ENGINE, 0, 1), (1, 0, ENGINE), (0, ENGINE, 1)])
def test_the_group_is_ready_once_when_all_are(order):
    rig = Rig()
    for index in order:
        assert not rig.ready
        rig.says_ready(index)
    assert [[[each["pid"] for each in lines] for lines in both] for both in rig.ready] == [[[99], [100, 101]]]
    rig.says_ready(1)
    assert len(rig.ready) == 1


@pytest.mark.parametrize("line", ["", "hello", "[1]", "{", '{"event": "other"}', "null"])
def test_other_lines_are_passed_on(line):
    rig = Rig()
    rig.group.on_line(0, line)
    assert rig.passed == [line]


@pytest.mark.parametrize("code", [0, 1, 70, -signal.SIGKILL, -signal.SIGSEGV])
def test_a_front_end_process_that_ends_is_started_anew(code):
    rig = serving()
    rig.ends(1, code)
    assert rig.start() == [1]
    assert len(rig.said) == 1
    assert not rig.group.is_stopping


def test_one_that_cannot_start_ends_the_group_with_its_code():
    rig = Rig()
    rig.ends(0, 69)
    assert rig.running[1].signals == rig.running[ENGINE].signals == [signal.SIGTERM]
    rig.ends(1, 0)
    rig.ends(ENGINE, 0)
    assert rig.group.exit_code == 69


def test_one_that_ends_again_and_again_ends_the_group():
    rig = serving()
    for _ in range(MOST_RESTARTS):
        rig.ends(0, 1)
        rig.pause()
        assert rig.start() == [0]
    rig.ends(0, 1)
    assert rig.group.wanted == []
    assert rig.group.pause_s() is None
    rig.ends(1, 0)
    rig.ends(ENGINE, 0)
    assert rig.group.exit_code == EXIT_FATAL


def test_ends_that_are_far_apart_never_add_up():
    rig = serving()
    for _ in range(3 * MOST_RESTARTS):
        rig.ends(0, -signal.SIGKILL)
        rig.clock.advance(WINDOW_NS // 10)
        assert rig.start() == [0]
    assert not rig.group.is_stopping


def test_restarts_come_at_once_and_then_after_pauses_that_grow():
    rig = serving()
    pauses = []
    for _ in range(8):
        rig.ends(0, 1)
        pauses.append(rig.group.pause_s())
        if pauses[-1]:
            assert rig.start() == []
        rig.pause()
        assert rig.start() == [0]
        assert rig.group.pause_s() is None
    assert pauses == [None, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    rig.ends(1, 1)
    assert rig.start() == [1]  # each has its own count
    rig.clock.advance(WINDOW_NS + 1)
    rig.ends(0, 1)
    assert rig.start() == [0]


def test_one_that_cannot_be_started_now_is_tried_again():
    rig = serving()
    rig.ends(0, 1)
    rig.group.put_off()
    assert rig.start() == []
    assert rig.pause() == LONGEST_PAUSE_NS / 1e9
    assert rig.start() == [0]


def test_a_group_that_gives_up_says_what_ended_and_ends_with_70():
    rig = serving()
    rig.group.give_up("the fork server ended")
    assert rig.said == [f"the fork server ended, {MOST_RESTARTS} times in a minute; ending all"]
    for index in (0, 1, ENGINE):
        assert rig.ends(index, 0).signals == [signal.SIGTERM]
    assert rig.group.exit_code == EXIT_FATAL


@pytest.mark.parametrize(
    ("code", "exit_code"), [(-signal.SIGKILL, EXIT_FATAL), (70, 70), (65, 65), (0, EXIT_FATAL), (1, 1)]
)
def test_without_the_engine_process_all_end(code, exit_code):
    rig = serving()
    rig.ends(ENGINE, code)
    assert [rig.running[index].signals for index in (0, 1)] == [[signal.SIGTERM]] * 2
    rig.ends(0, 70)
    rig.ends(1, -signal.SIGTERM)
    assert rig.group.exit_code == exit_code
    assert rig.group.wanted == []


@pytest.mark.parametrize("are_ready", [True, False])
def test_one_that_finds_the_engine_process_gone_first_is_not_started_anew(are_ready):
    rig = serving() if are_ready else Rig()
    rig.is_engine_ending = True
    rig.ends(1, 70)
    assert rig.start() == []
    rig.ends(ENGINE, 65)
    assert rig.running[0].signals == [signal.SIGTERM]
    rig.ends(0, 70)
    assert (rig.group.exit_code, rig.said) == (65, [])


@pytest.mark.parametrize("order", [(0, 1, ENGINE), (1, ENGINE, 0), (ENGINE, 1, 0)])
def test_a_stop_request_goes_to_all_once_and_their_ends_are_expected(order):
    rig = serving()
    rig.group.on_signal(signal.SIGINT)
    assert [rig.running[index].signals for index in (0, 1, ENGINE)] == [[signal.SIGINT]] * 3
    for index in order:
        assert rig.ends(index, 0).signals == [signal.SIGINT]
    assert (rig.group.exit_code, rig.said) == (0, [])


def test_a_stop_request_before_any_front_end_process_runs_ends_the_engine_process():
    rig = Rig(starts=False)
    engine = Child()
    rig.group.add(ENGINE, engine)
    rig.group.on_signal(signal.SIGTERM)
    assert engine.signals == [signal.SIGTERM]
    assert rig.group.wanted == []


def test_one_that_was_not_ready_at_a_stop_request_may_find_the_engine_process_gone():
    rig = Rig()
    rig.group.on_signal(signal.SIGTERM)
    for index in (0, 1):
        rig.ends(index, EXIT_FATAL)
    rig.ends(ENGINE, 0)
    assert rig.group.exit_code == 0


def test_a_second_request_goes_to_all_and_kills_those_that_do_not_end():
    rig = serving()
    rig.group.on_signal(signal.SIGTERM)
    rig.clock.advance(ONE_REQUEST_NS)
    rig.group.on_signal(signal.SIGTERM)
    assert [child.signals for child in rig.running.values()] == [[signal.SIGTERM] * 2] * 3
    assert rig.group.kill_in_s() == END_LIMIT_NS / 1e9
    rig.clock.advance(END_LIMIT_NS)
    assert rig.group.kill_in_s() is None
    assert all(child.signals[-1] == signal.SIGKILL for child in rig.running.values())


def test_a_signal_of_the_log_goes_to_all():
    rig = serving()
    rig.group.on_signal(signal.SIGUSR1)
    assert [child.signals for child in rig.running.values()] == [[signal.SIGUSR1]] * 3


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("end"), st.integers(ENGINE, 2), st.sampled_from([0, 1, 70, 69, -9, -15])),
        st.tuples(st.just("ready"), st.integers(ENGINE, 2), st.none()),
        st.tuples(st.just("signal"), st.sampled_from([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]), st.none()),
        st.tuples(st.just("time"), st.integers(0, 2 * WINDOW_NS), st.none()),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens_all_end_in_order_once_one_asks_for_it(events):
    rig = Rig(3)
    for kind, value, code in events:
        if kind == "end" and value in rig.running:
            rig.ends(value, code)
        elif kind == "ready" and value in rig.running:
            rig.says_ready(value)
        elif kind == "signal":
            rig.group.on_signal(value)
        elif kind == "time":
            rig.clock.advance(value)
        rig.pause()
        rig.start()
        assert rig.group.is_stopping or len(rig.running) == 4
    rig.group.stop(signal.SIGTERM)
    for index in [index for index in (0, 1, 2) if index in rig.running]:
        assert rig.running[index].signals
        rig.ends(index, 0)
    if ENGINE in rig.running:
        assert rig.running[ENGINE].signals
        rig.ends(ENGINE, 0)
    assert rig.start() == []
    assert 0 <= rig.group.exit_code < 256
