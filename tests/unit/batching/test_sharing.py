"""Ten cameras beside clients that take all they can get: permits and batches are shared max-min, in virtual time."""

import pytest

from forebay_server.bench.batching_workloads import GPU, MS, SECOND_NS, Executor
from forebay_server.bench.virtual_lane import StageCosts
from tests.support.sharing import WARM_UP_NS, Client, Sharing

SLOW = Executor(StageCosts(15 * MS, MS, jitter=0.02), 16)
CAMERAS, PERMITS, SECONDS = 10, 256, 5
COUNTED_S = SECONDS - WARM_UP_NS / SECOND_NS
BUDGET_NS = 100 * MS


def fair_per_s(executor, streams):
    return executor.capacity_per_ns * SECOND_NS / streams


def share_out(executor, greedy, fps):
    cameras = [Client(BUDGET_NS, fps=fps) for _ in range(CAMERAS)]
    Sharing(executor, PERMITS, [*greedy, *cameras], SECONDS).run()
    return cameras


def jain(shares):
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.6, 0.9])
@pytest.mark.parametrize("budget_ms", [None, 50, 100, 300])
@pytest.mark.parametrize(("window", "are_calls"), [(256, False), (400, True)], ids=["stream", "calls"])
def test_cameras_that_want_less_than_their_share_are_in_time(window, are_calls, budget_ms, load):
    greedy = Client(budget_ms and budget_ms * MS, window=window, are_calls=are_calls)
    fps = load * fair_per_s(SLOW, CAMERAS + 1)
    shares = [camera.in_time_share for camera in share_out(SLOW, [greedy], fps)]
    assert min(shares) >= 0.95
    assert jain(shares) >= 0.95
    if budget_ms != 50:  # shorter than two batches: most of these are late in any order
        rest_per_s = SLOW.capacity_per_ns * SECOND_NS - CAMERAS * fps
        assert greedy.executed / COUNTED_S >= 0.9 * rest_per_s, "what the others leave is the greedy client's"


@pytest.mark.slow
@pytest.mark.parametrize("jitter", [0.05, 0.3, 0.5])
def test_cameras_share_an_executor_that_gains_nothing_from_batches(jitter):
    """No head is given up then, and most frames expire behind the others. One in four can be in time."""
    executor = Executor(StageCosts(0, 30 * MS, jitter=jitter), 8)
    cameras = [Client(BUDGET_NS, fps=4 * fair_per_s(executor, CAMERAS)) for _ in range(CAMERAS)]
    Sharing(executor, PERMITS, cameras, seconds=20).run()  # it takes four until the overload counts as sustained
    assert jain([camera.executed for camera in cameras]) >= 0.95


@pytest.mark.slow
def test_on_a_fast_executor_permits_are_what_is_scarce():
    greedy = Client(None, window=256)
    cameras = share_out(GPU, [greedy], 0.6 * fair_per_s(GPU, CAMERAS + 1))
    assert min(camera.in_time_share for camera in cameras) >= 0.95
    assert greedy.refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("budget_ms", [None, 100])
def test_greedy_clients_get_the_same_however_much_they_ask_for(budget_ms):
    first, second = (Client(budget_ms and budget_ms * MS, window=window) for window in (256, 64))
    cameras = share_out(SLOW, [first, second], 0.6 * fair_per_s(SLOW, CAMERAS + 2))
    assert min(camera.in_time_share for camera in cameras) >= 0.95
    assert first.executed == pytest.approx(second.executed, rel=0.1)


@pytest.mark.slow
def test_a_connection_with_a_weight_gets_as_much_as_so_many():
    """A proxy with the calls of three callers, beside one caller of the same kind."""
    proxy = Client(BUDGET_NS, window=256, weight=3, are_calls=True)
    caller = Client(BUDGET_NS, window=256, are_calls=True)
    Sharing(SLOW, 64, [proxy, caller], SECONDS).run()
    assert proxy.executed / caller.executed == pytest.approx(3, rel=0.2)
