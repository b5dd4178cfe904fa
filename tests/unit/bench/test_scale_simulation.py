"""A hundred servers and five thousand cameras in virtual time, placed by the client library's own choice."""

import pytest

from forebay_server.bench.scale_simulation import Simulation, Town


@pytest.fixture(scope="module")
def outcome():
    return Simulation(Town(), seed=1).run()


def test_servers_stay_even_while_cameras_come_and_go_and_a_tenth_of_the_servers_fails(outcome):
    assert outcome.imbalance_p99 <= 1.3


def test_only_streams_of_servers_that_failed_move(outcome):
    assert 0 < outcome.moved_per_hour == outcome.failed_over
    assert outcome.moved_per_hour <= 5000 * 0.1 * 1.3


def test_no_stream_moves_more_often_than_its_servers_fail(outcome):
    assert outcome.most_moves <= Town().hours


def test_the_same_seed_gives_the_same_run():
    small = Town(servers=10, gateways=5, cameras=100, hours=1)
    assert Simulation(small, seed=3).run() == Simulation(small, seed=3).run()
