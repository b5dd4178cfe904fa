"""After a disturbance of any kind, the former is soon itself again, in virtual time.

Its measured durations take a tenth to a hundred times as long, or the process stands still. Counted from the end of the
last batch that was formed meanwhile, the rate of results in time is back within 2 s, or within 1 s of a disturbance of
0.1 s. A part of the grid is run here; tests/heavy/test_recovery.py has all of it.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.bench.batching_workloads import SECOND_NS
from forebay_server.bench.disturbance import DELIVERY, DEMAND, PAUSE, QUANTITIES, Disturbance
from forebay_server.bench.recovery import LOADS, START_NS, STREAMS, recover
from forebay_server.service.request import Delivery


def for_a_while(quantity, factor, seconds, *, after_s=0.0):
    start_ns = START_NS + int(after_s * SECOND_NS)
    return Disturbance(quantity, factor, start_ns, start_ns + int(seconds * SECOND_NS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("delivery", "result_ms", "load", "seconds"),
    [
        (Delivery.EVERY, 3, 1.2, 0.6),
        (Delivery.EVERY, 3, 2.0, 1.0),
        (Delivery.EVERY, 6, 0.7, 1.0),
        (Delivery.LATEST, 3, 1.2, 1.0),
        (Delivery.LATEST, 6, 2.0, 0.6),
    ],
)
def test_results_that_were_slow_to_leave_for_a_while_are_forgotten(delivery, result_ms, load, seconds):
    cell = recover(load, 48, delivery, [for_a_while(DELIVERY, result_ms / 0.06, seconds)])
    assert cell.is_recovered, cell


CONDITIONS = [(0.9, 8, Delivery.EVERY, 0.1), (1.2, 48, Delivery.LATEST, 2.0), (2.0, 48, Delivery.EVERY, 0.5)]
WRONGS = [*((quantity, factor) for quantity in QUANTITIES for factor in (0.1, 3.0, 100.0)), (PAUSE, 1.0)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantity", "factor", "condition"),
    [(*wrong, CONDITIONS[(number + number // 3) % 3]) for number, wrong in enumerate(WRONGS)],
)
def test_former_is_itself_again_after(quantity, factor, condition):
    load, streams, delivery, seconds = condition
    cell = recover(load, streams, delivery, [for_a_while(quantity, factor, seconds)])
    assert cell.is_recovered, cell


def disturbances():
    """One to three things that go wrong within three seconds, at the same time or one after the other.

    Each once, and demand no more than tenfold: three times a hundredfold are more frames than memory holds.
    """

    def wrong(quantity, power, seconds, after_s):
        return for_a_while(
            quantity, 10.0 ** (min(power, 1.0) if quantity == DEMAND else power), seconds, after_s=after_s
        )

    return st.lists(
        st.builds(
            wrong,
            st.sampled_from([*QUANTITIES, PAUSE]),
            st.floats(-1.0, 2.0),
            st.floats(0.1, 2.0),
            st.floats(0.0, 1.0),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda part: part.quantity,
    )


@pytest.mark.slow
@settings(max_examples=10, derandomize=True)
@given(disturbances(), st.sampled_from(LOADS), st.sampled_from(STREAMS), st.sampled_from(Delivery))
def test_no_disturbance_is_found_that_traps(parts, load, streams, delivery):
    cell = recover(load, streams, delivery, parts)
    assert cell.is_recovered, cell
