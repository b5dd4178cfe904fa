"""The servers without a pipeline that the benchmarks compare with: they answer every frame, and end on a signal."""

import pytest

from forebay_server.bench.identity import BARE, FLOORS, offer
from forebay_server.bench.server_process import bare_server


@pytest.mark.parametrize("command", [BARE, *FLOORS.values()], ids=" ".join)
def test_a_server_without_a_pipeline_answers_every_frame(command):
    with bare_server(*command) as server:
        for address in (server.address, server.uds):
            run = offer(server, address, 150_528, streams=4, window=8, frames=400)
            assert (run["frames"], run["not_ok"]) == (400, 0)
    assert not server.process.is_running()
