"""The step after delivery: typed results in the worker pool, then towards the event loop.

One job and one wake-up per batch. A batch from which nobody wants typed results goes straight on.
"""

from collections.abc import Sequence

from service.errors import InvariantError, ServiceError
from service.models.description import Task
from service.request import Completion, CompletionSink
from service.results.result import make_result
from service.results.wants import Wants
from service.worker_pool import WorkerPool


class ResultFinisher:
    """Finishes the batches of one model version. Thread: `finish` by d2h threads and the former's; it never blocks."""

    def __init__(self, task: Task | None, pool: WorkerPool, sink: CompletionSink) -> None:
        self._task = task
        self._pool = pool
        self._sink = sink

    def finish(self, completions: Sequence[Completion]) -> None:
        """Hand on the completions of one batch."""
        if self._task is not None and any(self._wants_typed(completion) for completion in completions):
            self._pool.submit_result(lambda: self._finish_typed(completions))
        else:
            self._sink.post(completions)

    def _wants_typed(self, completion: Completion) -> bool:
        wants: Wants = completion.request.wants
        return completion.error is None and wants.options is not None and not completion.request.is_cancelled

    def _finish_typed(self, completions: Sequence[Completion]) -> None:
        try:
            for completion in completions:
                if self._wants_typed(completion):
                    self._make(completion)
        finally:
            self._sink.post(completions)

    def _make(self, completion: Completion) -> None:
        request = completion.request
        try:
            if self._task is None or completion.outputs is None:
                raise InvariantError("a typed result without a task or outputs")
            completion.result = make_result(self._task, completion.outputs, request.wants.options, request.frame_size)
        except ServiceError as error:
            completion.error = error
