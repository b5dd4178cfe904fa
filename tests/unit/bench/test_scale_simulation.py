"""Fleets in virtual time: the servers' own decisions and the client library's own choice, while cameras come and go."""

from dataclasses import replace

import pytest

from forebay_server.bench.scale_simulation import Simulation, Town

SMALL = Town(servers=30, cameras=1500, hours=2)


def played(town):
    return Simulation(town, seed=1).run()


@pytest.mark.parametrize("gateways", [0, 5, 1500], ids=["a proxy", "five clients", "one client a camera"])
def test_where_there_is_room_load_is_even_and_few_streams_move(gateways):
    """A tenth of the servers fails once an hour, and a tenth of the cameras are four times as heavy as the others."""
    found = played(replace(SMALL, gateways=gateways))
    assert found.imbalance_p99 <= 1.3
    assert found.moved_per_hour <= SMALL.cameras * 0.3
    assert found.over < 0.02
    assert found.failed_over <= SMALL.cameras * 0.1 * 1.5


def test_streams_of_a_client_for_each_camera_are_less_even_where_servers_do_not_ask():
    town = replace(SMALL, gateways=1500)
    assert played(replace(town, asks=False)).imbalance_p99 > played(town).imbalance_p99 + 0.2


@pytest.mark.parametrize(("gateways", "most"), [(0, 1.3), (1500, 1.5)], ids=["a proxy", "one client a camera"])
def test_where_every_server_has_too_much_to_do_streams_make_them_more_even(gateways, most):
    town = replace(SMALL, gateways=gateways, utilization=1.3)
    found, still = played(town), played(replace(town, asks=False))
    assert found.most_moves <= 30 + 1  # once in two minutes, and once with a server that fails
    assert found.moved_per_hour <= SMALL.cameras * 10
    assert found.imbalance_p99 <= min(most, still.imbalance_p99)


def test_the_same_seed_gives_the_same_run():
    small = Town(servers=10, gateways=5, cameras=100, hours=1)
    assert Simulation(small, seed=3).run() == Simulation(small, seed=3).run()
