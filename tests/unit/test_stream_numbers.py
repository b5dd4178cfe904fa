"""Numbers of streams: their labels, and their sums over processes."""

from forebay_server.service.journal.streams import StreamNumbers, sum_of
from tests.support.observing import SECOND, Observed


def test_numbers_of_processes_add_up():
    one = StreamNumbers(2, {"new": 3}, {"limit": 1}, {"drain": 4}, is_draining=True)
    other = StreamNumbers(1, {"new": 1, "resumed": 2}, {}, {"uneven": 1})
    both = {"new": 4, "resumed": 2}, {"limit": 1}, {"drain": 4, "uneven": 1}
    assert sum_of([one, other]) == StreamNumbers(3, *both, is_draining=True)
    assert sum_of([]) == StreamNumbers()


def test_the_execution_time_of_the_last_ten_seconds_is_kept():
    observed = Observed()
    observed.open()
    observed.tick()
    for second in range(12):
        observed.batch(second * 1000, execute_ms=second)
        observed.tick(1000)
    (model,) = observed.observer.models
    _, execute_ns, _ = model.recent().busy_ns
    assert execute_ns * 1000 == sum(range(2, 12)) * SECOND
