"""Counts how requests of one version end in a front-end process, until they are sent to the engine process.

Only here is it known what a client got: it may leave before the answer of an executed request comes, and the typed
result may be impossible to make. So the engine process counts batches, and this process counts the ends of all its
requests (`service.request.Request.counts_late`). If the process dies, the engine process counts the requests that it
has, as cancelled; the ends of the last quarter of a second, which were not told yet, are lost.

Takes the place of `service.journal.statistics.VersionStatistics` in a front-end process. Thread: any.
"""

import threading
from collections import Counter
from collections.abc import Sequence

from forebay_server.service.clock import Clock
from forebay_server.service.errors import Outcome
from forebay_server.service.group.messages import Finished, PictureCounts, Refusals
from forebay_server.service.journal.statistics import Successes, outcome_of
from forebay_server.service.pictures.device_picture import DecodedBy
from forebay_server.service.request import Completion


class FrontEndCounts:
    """See the module.

    Args:
        number: of the version.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, number: int, clock: Clock) -> None:
        self._number = number
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: Counter[Outcome] = Counter()
        self._total_ns: Counter[Outcome] = Counter()
        self._successes = Successes()
        self._pictures: Counter[str] = Counter()

    def count_picture(self, by: DecodedBy, count: int = 1) -> None:
        """Count JPEG files by who decodes them."""
        with self._lock:
            self._pictures[by.value] += count

    def refuse(self, outcome: Outcome, received_ns: int) -> None:
        """Count a request that was read at `received_ns` and ends now."""
        with self._lock:
            self._fail(outcome, received_ns, self._clock.now_ns())

    def observe(self, completions: Sequence[Completion]) -> None:
        """Count requests that came back from the engine process."""
        now_ns = self._clock.now_ns()
        with self._lock:
            for completion in completions:
                request = completion.request
                outcome = outcome_of(completion)
                if outcome is Outcome.OK:
                    self._successes.add(request, now_ns)
                else:
                    self._fail(outcome, request.timeline.received_ns or request.arrival_ns, now_ns)

    def take_refusals(self) -> list[Refusals]:
        """Return the failures since the last call."""
        if not self._failures:
            return []
        with self._lock:
            failures, self._failures = self._failures, Counter()
            total_ns, self._total_ns = self._total_ns, Counter()
        return [Refusals(self._number, outcome.value, n, total_ns[outcome]) for outcome, n in failures.items()]

    def take_finished(self) -> list[Finished]:
        """Return the successes since the last call."""
        if not self._successes.count:
            return []
        with self._lock:
            successes, self._successes = self._successes, Successes()
        return [Finished(self._number, successes)]

    def take_pictures(self) -> list[PictureCounts]:
        """Return the JPEG files since the last call, by who decoded them."""
        if not self._pictures:
            return []
        with self._lock:
            pictures, self._pictures = self._pictures, Counter()
        return [PictureCounts(self._number, dict(pictures))]

    def _fail(self, outcome: Outcome, received_ns: int, now_ns: int) -> None:
        self._failures[outcome] += 1
        self._total_ns[outcome] += now_ns - received_ns
