import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.search import Bounds, Objective, Trial, find_capacity

TARGET = Objective(p99_ms=100, dropped_share=0.01)


class SimulatedServer:
    """Carries `capacity` and not more: M/D/1-like latency below, dropped frames above. Noise moves p99's end."""

    def __init__(self, capacity, noise=0.0, seed=0, service_ms=10.0):
        self.capacity = capacity
        self.tried = []
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._service_ms = service_ms

    async def measure(self, load):
        self.tried.append(load)
        use = load / (self.capacity * 1.1)  # the target is met up to 1/1.1 of the server's maximum
        p99_ms = math.inf if use >= 1 else self._service_ms * (1 + use / (1 - use) * 0.9)
        upper_ms = p99_ms * float(np.exp(self._rng.normal(0, self._noise)))
        return Trial(load=load, p99_ms=p99_ms, p99_upper_ms=upper_ms, dropped_share=max(0.0, 1 - 1 / max(use, 1)))


def capacity_of(server, **bounds):
    return asyncio.run(find_capacity(server.measure, TARGET, Bounds(**bounds)))


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 2000), first=st.integers(1, 64))
def test_the_answer_encloses_the_known_capacity_exactly_for_small_numbers(capacity, first):
    server = SimulatedServer(capacity)
    found = capacity_of(server, first=float(first))
    assert found.highest_passing <= capacity < found.lowest_failing
    assert found.lowest_failing - found.highest_passing <= max(1, 0.05 * found.lowest_failing)
    assert len(server.tried) < 30


def test_the_accepted_load_is_tried_three_times():
    server = SimulatedServer(37)
    found = capacity_of(server)
    assert found.highest_passing == pytest.approx(37, abs=2)
    assert server.tried.count(found.highest_passing) == 3


def test_rates_are_searched_to_the_resolution_asked_for():
    server = SimulatedServer(123.4)
    found = capacity_of(server, first=10.0, is_whole=False, resolution=0.01)
    assert found.highest_passing <= 123.4 <= found.lowest_failing
    assert found.lowest_failing / found.highest_passing < 1.011


def test_a_server_that_carries_nothing_has_no_capacity():
    found = capacity_of(SimulatedServer(0.5), first=8.0)
    assert (found.highest_passing, found.lowest_failing) == (None, 1.0)


def test_a_server_that_carries_everything_is_only_bounded_by_the_search():
    found = capacity_of(SimulatedServer(10_000), highest=64.0)
    assert (found.highest_passing, found.lowest_failing) == (64.0, None)


@pytest.mark.parametrize("seed", range(20))
def test_with_noise_the_answer_is_near_the_capacity(seed):
    found = capacity_of(SimulatedServer(100, noise=0.1, seed=seed))
    assert 85 <= found.highest_passing <= 105


def test_a_load_that_passes_by_luck_is_not_the_answer():
    class Lucky(SimulatedServer):
        async def measure(self, load):
            trial = await super().measure(load)
            if load == 16 and self.tried.count(16) > 1:
                return Trial(load=load, p99_ms=500, p99_upper_ms=500, dropped_share=0)
            return trial

    found = capacity_of(Lucky(16))
    assert found.highest_passing == 15
    assert found.lowest_failing == 16


def test_a_run_without_an_upper_end_does_not_pass():
    assert not Trial(load=1, p99_ms=1, p99_upper_ms=None, dropped_share=0).passes(TARGET)
    assert not Trial(load=1, p99_ms=1, p99_upper_ms=1, dropped_share=0, is_valid=False).passes(TARGET)
    assert not Trial(load=1, p99_ms=1, p99_upper_ms=1, dropped_share=0.02).passes(TARGET)
    assert Trial(load=1, p99_ms=1, p99_upper_ms=100, dropped_share=0.01).passes(TARGET)


def test_one_run_that_the_generator_spoils_is_repeated():
    class Disturbed(SimulatedServer):
        async def measure(self, load):
            trial = await super().measure(load)
            if len(self.tried) % 3 == 0:
                return Trial(load=load, p99_ms=1, p99_upper_ms=1, dropped_share=0, is_valid=False)
            return trial

    found = capacity_of(Disturbed(20))
    assert (found.highest_passing, found.lowest_failing, found.remark) == (20, 21, "")


def test_when_the_generator_is_the_limit_the_answer_says_so():
    async def measure(load):
        return Trial(load=load, p99_ms=1, p99_upper_ms=1, dropped_share=0, is_valid=load < 10)

    found = asyncio.run(find_capacity(measure, TARGET, Bounds()))
    assert found.highest_passing == 9
    assert "the generator, not the server" in found.remark


def test_an_interrupted_trial_ends_the_search_and_counts_for_nothing():
    class Interrupted(SimulatedServer):
        async def measure(self, load):
            trial = await super().measure(load)
            return replace(trial, is_interrupted=True, dropped_share=1.0) if load == 8 else trial

    server = Interrupted(20)
    found = capacity_of(server)
    assert found.is_interrupted
    assert server.tried[-1] == 8
    assert [trial.load for trial in found.trials] == [1, 2, 4]
    assert (found.highest_passing, found.lowest_failing) == (4, None)


def test_bounds_that_enclose_nothing_are_refused():
    for fields in ({"first": 0.5}, {"highest": 0.5}, {"resolution": 0.0}, {"repeats": 0}):
        with pytest.raises(UsageError):
            Bounds(**fields)
