"""Random programs of device work: the checker raises exactly where a brute-force happens-before graph finds a race.

The oracle keeps every operation as a node with all its ancestors and every access ever made; it forgets nothing. The
checker keeps clocks and forgets most accesses. They must agree on the first racing operation.
"""

from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.device_simulated import ByteRange, CopyCosts, SimulatedDevice
from forebay_server.engines.errors import RaceError
from tests.support.virtual_clock import VirtualClock

NBYTES = 6
STREAMS = 3
EVENTS = 2

streams = st.integers(0, STREAMS - 1)
events = st.integers(0, EVENTS - 1)
spans = st.tuples(st.integers(0, NBYTES - 1), st.integers(1, 3)).map(lambda s: (s[0], min(s[1], NBYTES - s[0])))
operations = st.one_of(
    st.tuples(st.just("h2d"), streams, spans),
    st.tuples(st.just("d2h"), streams, spans.map(lambda span: (0, sum(span)))),  # from the first byte on
    st.tuples(st.just("read"), streams, spans),
    st.tuples(st.just("write"), streams, spans),
    st.tuples(st.just("exclusive"), streams, spans),
    st.tuples(st.just("record"), streams, events),
    st.tuples(st.just("wait"), streams, events),
    st.tuples(st.just("sync_event"), streams, events),
    st.tuples(st.just("sync_stream"), streams, events),
    st.tuples(st.just("host_read"), streams, spans),
    st.tuples(st.just("host_write"), streams, spans),
)


@dataclass
class Oracle:
    """Ancestors of a node are a bit mask over earlier nodes."""

    ancestors: list[int] = field(default_factory=list)
    accesses: list[tuple[int, str, int, int, bool]] = field(default_factory=list)
    last_of: dict[object, int] = field(default_factory=dict)
    recorded: dict[int, int] = field(default_factory=dict)

    def add(self, actor, *after) -> int:
        """Add a node behind the last one of `actor`, the host's last one, and the nodes `after`."""
        node = len(self.ancestors)
        before = {self.last_of.get(actor), self.last_of.get("host"), *after} - {None}
        self.ancestors.append(sum({1 << n for n in before}) | self._union(before))
        self.last_of[actor] = node
        return node

    def races(self, node, memory, start, nbytes, is_write) -> bool:
        for earlier, other, other_start, other_nbytes, was_write in self.accesses:
            is_apart = other_start + other_nbytes <= start or start + nbytes <= other_start
            if other != memory or is_apart or not (is_write or was_write) or earlier == node:
                continue
            if not self.ancestors[node] >> earlier & 1:
                return True
        self.accesses.append((node, memory, start, nbytes, is_write))
        return False

    def _union(self, nodes) -> int:
        mask = 0
        for node in nodes:
            mask |= self.ancestors[node]
        return mask

    def step(self, verb, stream, detail) -> bool:
        """Do one operation; returns whether it races."""
        if verb == "record":
            self.recorded[detail] = self.add(stream)
        elif verb == "wait":
            self.add(stream, self.recorded[detail])
        elif verb == "sync_event":
            self.add("host", self.recorded[detail])
        elif verb == "sync_stream":
            self.add("host", self.last_of.get(stream))
        else:
            return self._access(verb, stream, detail)
        return False

    def _access(self, verb, stream, span) -> bool:
        if verb.startswith("host"):
            return self.races(self.add("host"), "host", 0, NBYTES, verb == "host_write")
        node = self.add(stream)
        made = {
            "h2d": [("host", *span, False), ("device", *span, True)],
            "d2h": [("device", *span, False), ("host", *span, True)],
            "read": [("device", *span, False)],
            "write": [("device", *span, True)],
            "exclusive": [("exclusive", 0, 1, True)],
        }[verb]
        results = [self.races(node, *access) for access in made]
        return any(results)


class Subject:
    """The same operations on the simulated device."""

    def __init__(self, cost) -> None:
        self.device = SimulatedDevice(clock=VirtualClock(), cost=cost)
        self.host, self.memory = self.device.alloc_host(NBYTES), self.device.alloc_device(NBYTES)
        self.streams = [self.device.create_stream(str(number)) for number in range(STREAMS)]
        self.events = [self.device.create_event() for _ in range(EVENTS)]

    def step(self, verb, number, detail) -> None:
        stream = self.streams[number]
        if verb in {"record", "wait"}:
            getattr(stream, verb)(self.events[detail])
        elif verb == "sync_event":
            self.events[detail].sync()
        elif verb == "sync_stream":
            stream.sync()
        elif verb == "host_read":
            self.host.read_view()
        elif verb == "host_write":
            self.host.write_view()
        else:
            self._enqueue(stream, verb, *detail)

    def _enqueue(self, stream, verb, start, nbytes) -> None:
        if verb == "h2d":
            stream.copy_h2d(self.memory, self.host, nbytes, start, start)
        elif verb == "d2h":
            stream.copy_d2h(self.host, self.memory, nbytes)
        elif verb == "exclusive":
            stream.execute(exclusive="activations", cost_ns=3)
        else:
            part = [ByteRange(self.memory, start, nbytes)]
            stream.execute(**{f"{verb}s": part}, cost_ns=2)


@given(
    program=st.lists(operations, max_size=60),
    skipped_races=st.integers(0, 30),
    cost=st.sampled_from([CopyCosts(), CopyCosts(1000, 1e9, 1e9)]),
)
def test_the_checker_agrees_with_a_happens_before_graph(program, skipped_races, cost):
    """The first races are left out of the program, so that long programs without any are tried too."""
    oracle, subject = Oracle(), Subject(cost)
    for verb, stream, detail in program:
        if verb in {"wait", "sync_event"} and detail not in oracle.recorded:
            continue
        before = deepcopy(oracle)
        if not oracle.step(verb, stream, detail):
            subject.step(verb, stream, detail)
        elif skipped_races:
            oracle, skipped_races = before, skipped_races - 1
        else:
            with pytest.raises(RaceError):
                subject.step(verb, stream, detail)
            assert len(subject.device.races) == 1
            return
    assert subject.device.races == ()
