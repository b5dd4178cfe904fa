"""Typed results in the worker pool: every request of a batch is answered, with its result or with an error."""

import numpy as np
import pytest

from forebay_server.service.errors import BatchFailedError, CorruptResultError
from forebay_server.service.request import Completion
from forebay_server.service.results.classes import Classification
from forebay_server.service.results.finisher import ResultFinisher
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.task import ClassificationTask
from forebay_server.service.results.wants import Wants
from forebay_server.service.worker_pool import WorkerPool
from tests.support.batching import Sink, request

TASK = ClassificationTask(labels=("cat", "dog"), max_results=1)
TYPED, TENSORS = Wants(ResultOptions(), ()), Wants(None, (0,))
DOG = (Classification("dog", 1, 2.0),)


def completion(*scores, wants=TYPED, dtype=np.float32, **options):
    one = request()
    one.wants = wants
    return Completion(one, outputs=(np.array([scores], dtype),), **options)


@pytest.fixture
def pool():
    fatal = []
    pool = WorkerPool(1, fatal.append)
    yield pool
    pool.close()
    assert not fatal


def finished(pool, *completions):
    sink = Sink()
    ResultFinisher(TASK, pool, sink).finish(completions)
    return sink.wait_for(len(completions))


def test_results_are_made_for_those_who_want_them(pool):
    typed, raw = finished(pool, completion(1, 2), completion(1, 2, wants=TENSORS))
    assert (typed.result, typed.error) == (DOG, None)
    assert (raw.result, raw.error) == (None, None)


def test_request_that_failed_keeps_its_error(pool):
    error = BatchFailedError("failed")
    failed, good = finished(pool, completion(1, 2, error=error), completion(1, 2))
    assert (failed.result, failed.error) == (None, error)
    assert good.result == DOG


@pytest.mark.parametrize(
    "bad", [completion(1, float("nan")), completion("a", "b", dtype=object)], ids=["not finite", "not numbers"]
)
def test_outputs_that_give_no_result_are_an_error_of_their_own_request(pool, bad):
    first, second = finished(pool, bad, completion(1, 2))
    assert isinstance(first.error, CorruptResultError)
    assert (second.result, second.error) == (DOG, None)
