"""The tracer counts our own code, by module, on every thread that serves requests."""

import sys
import threading

import pytest

from forebay_server.bench import calls
from forebay_server.service.request import Feasibility, Timeline


@pytest.fixture
def tracer():
    profile = threading.getprofile(), sys.getprofile()
    tracer = calls.Tracer()
    tracer.install()
    yield tracer
    threading.setprofile(profile[0])
    sys.setprofile(profile[1])


def traced(tracer, act):
    tracer.start()
    act()
    tracer.stop()
    return [(module.rpartition(".")[2], function) for _, module, function in tracer.calls]


def test_calls_of_our_code_are_counted_and_those_of_others_are_not(tracer):
    timeline = Timeline(received_ns=1)
    found = traced(tracer, lambda: (timeline.durations_us(), sorted([2, 1], key=lambda number: number)))
    assert found == [("request", "Timeline.durations_us"), ("request", "__create_fn__.<locals>.__init__")]
    assert tracer.moves == 1


def test_a_thread_that_was_started_later_is_traced_and_upkeep_is_not(tracer):
    feasibility = Feasibility()

    def look():
        for name in ("worker-0", "upkeep"):
            thread = threading.Thread(target=feasibility.is_hopeless, args=(0, None, 0), name=name)
            thread.start()
            thread.join()

    assert traced(tracer, look) == [("request", "Feasibility.is_hopeless")]
    assert tracer.calls[0][0] == "worker-0"


@pytest.mark.slow
def test_a_request_passes_from_the_front_end_to_the_engine_and_back():
    way = calls._measure("oip-unary")
    assert way["calls"].median > way["front_end"].median > 0
    assert way["modules"].median > 10
    assert way["moves"].median < way["calls"].median
