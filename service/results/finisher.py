"""The step after delivery: makes typed results in the worker pool, then posts them to the event loop.

One job and one wake-up per batch. A batch without requests for typed results goes straight to the loop.
"""

from collections.abc import Sequence
from functools import partial

import structlog

from forebay_server.service.errors import CorruptResultError, ServiceError
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import Completion, CompletionSink
from forebay_server.service.results.result import make_result
from forebay_server.service.results.task import Task
from forebay_server.service.results.wants import Wants
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)


class ResultFinisher:
    """Finishes the batches of one model version. Thread: `finish` by d2h threads and the former's; it never blocks.

    Args:
        task: meaning of the model's outputs; None for tensors only.
        pool: makes the results.
        sink: takes the completions.
        picture: the model's picture; None if it takes none.
    """

    def __init__(
        self, task: Task | None, pool: WorkerPool, sink: CompletionSink, picture: PictureInput | None = None
    ) -> None:
        self._task = task
        self._picture = picture
        self._pool = pool
        self._sink = sink

    def finish(self, completions: Sequence[Completion]) -> None:
        """Hand on the completions of one batch."""
        task = self._task
        typed = [] if task is None else [completion for completion in completions if _wants_typed(completion)]
        if task is not None and typed:
            self._pool.submit_result(partial(self._finish_typed, task, typed, completions))
        else:
            self._sink.post(completions)

    def _finish_typed(self, task: Task, typed: Sequence[Completion], completions: Sequence[Completion]) -> None:
        for completion in typed:
            if not completion.request.is_cancelled:
                _make(task, completion, self._picture)
        self._sink.post(completions)


def _wants_typed(completion: Completion) -> bool:
    wants: Wants = completion.request.wants
    return completion.error is None and wants.options is not None and not completion.request.is_cancelled


def _make(task: Task, completion: Completion, picture: PictureInput | None) -> None:
    request = completion.request
    try:
        result = make_result(task, completion.outputs or (), request.wants.options, request.frame_size, picture)
        completion.encoded = request.wants.encode(result)
        completion.result = result
    except ServiceError as error:
        completion.error = error
    except Exception:  # a fault in one frame's numbers: answer it with an error, and keep the server alive
        log.exception("a typed result cannot be made", request=request.id)
        completion.error = CorruptResultError("no typed result can be made of the model's outputs")
