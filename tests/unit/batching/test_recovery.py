"""Whatever is slow or fast for a while, the former is itself again soon after. In virtual time; the grid is heavy."""

import pytest

from forebay_server.bench.batching_workloads import SECOND_NS
from forebay_server.bench.disturbance import (
    DELIVERY,
    Disturbance,
)
from forebay_server.bench.recovery import START_NS, recover
from forebay_server.service.request import Delivery


def for_a_while(quantity, factor, seconds, *, after_s=0.0):
    start_ns = START_NS + int(after_s * SECOND_NS)
    return Disturbance(quantity, factor, start_ns, start_ns + int(seconds * SECOND_NS))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.6, 1.0])
@pytest.mark.parametrize("load", [0.7, 1.2, 2.0])
@pytest.mark.parametrize("result_ms", [3, 6])
@pytest.mark.parametrize("delivery", list(Delivery))
def test_results_that_were_slow_to_leave_for_a_while_are_forgotten(delivery, result_ms, load, seconds):
    cell = recover(load, 48, delivery, [for_a_while(DELIVERY, result_ms / 0.06, seconds)])
    assert cell.is_recovered, cell
