"""Which batches take less time than a hand-over between threads, so that they run inline. Pure.

The estimate alone could keep itself alive: batches that go from thread to thread wait for the interpreter at each
hand-over and so take longer than inline. So a batch that was short at calibration is tried inline, although the
estimate is longer, as long as such batches turn out short.

Owner: the thread that steps the former. `is_quick` also the event loop's, which decides with it who steps next.
"""

from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.short_runs import ShortRuns


class QuickBatches:
    """See the module.

    Args:
        cost: predicts durations.
        limit_ns: work below this runs inline: `InlineRunner.limit_ns`.
    """

    __slots__ = ("_cost", "_limit_ns", "_runs")

    def __init__(self, cost: CostModel, limit_ns: int) -> None:
        self._cost = cost
        self._limit_ns = limit_ns
        self._runs = ShortRuns(limit_ns)

    def is_quick(self, rows: int, now_ns: int) -> bool:
        """Whether a batch of `rows` rows that is alone in its lane is to run inline."""
        cost, limit_ns = self._cost, self._limit_ns
        if cost.h2d_ns(rows) + cost.estimate_ns(rows) < limit_ns:
            return True
        return cost.least_work_ns(rows) < limit_ns and self._runs.may_run(now_ns)

    def observe(self, work_ns: int, ended_ns: int) -> None:
        """Learn from a batch that ran inline: the duration of its upload and execution, and the time of its end."""
        self._runs.observe(work_ns, ended_ns)
