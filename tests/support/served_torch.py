"""A PyTorch model served from a repository by a whole model version: former, lanes, results; without a server."""

import threading
from itertools import count
from pathlib import Path

import numpy as np

from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file
from forebay_server.service.models.opening import open_version
from forebay_server.service.models.repository import Repository
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Delivery, StreamKey
from forebay_server.service.results.wants import Wants
from forebay_server.service.worker_pool import WorkerPool
from tests.support import torch_models
from tests.support.guard import HANG_GUARD_S
from tests.support.requests import frame_request

ROW_BYTES = 5 * 7


class Answers:
    """Implements CompletionSink."""

    def __init__(self):
        self.by_id = {}
        self._changed = threading.Condition()

    def post(self, completions):
        with self._changed:
            self.by_id.update({c.request.id: c for c in completions if c.request.stream.name != "calibration"})
            self._changed.notify_all()

    def wait_for(self, number):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.by_id) >= number, HANG_GUARD_S)


def write_repository(root: Path, kind: str, count: int = 2) -> Path:
    """`pixels`: input of bytes [5, 7]; one output is their sum."""
    folder = root / "pixels" / "1"
    folder.mkdir(parents=True)
    torch_models.write_pixels(folder)
    text = f'backend: "torch" max_batch_size: 8 instance_group {{ kind: {kind} count: {count} }}'
    (root / "pixels" / "config.pbtxt").write_text(text)
    return root


def serve(root: Path, requests: int, *, cpu_fallback: bool = False, look=lambda version: None, before_execution=None):
    """Send so many rows from 4 streams; return (rows, completions in the order of the rows).

    `look` sees the version when all is answered; `before_execution` is called before every batch runs.
    """
    clock, answers, fatal, ids = MonotonicClock(), Answers(), [], count(1)
    (entry,) = Repository([root]).models()
    description = describe(entry, cpu_fallback=cpu_fallback)
    pool = WorkerPool(1, fatal.append)
    context = VersionContext(
        clock,
        pool,
        answers,
        Permits(requests),
        fatal.append,
        {},
        cpu_fallback=cpu_fallback,
        before_execution=before_execution,
    )
    rows = np.random.default_rng(0).integers(0, 256, (requests, 5, 7)).astype(np.uint8)
    try:
        version = open_version(description, "1", model_file(entry, 1, description), context)
        try:
            streams = [StreamKey(f"camera {index}", Delivery.EVERY) for index in range(4)]
            for row in rows:
                lease = version.arena.lease()
                lease.host.write_view()[:ROW_BYTES] = row.reshape(-1)
                number = next(ids)
                version.arrive(
                    frame_request(
                        number,
                        lease,
                        stream=streams[number % 4],
                        arrival_ns=clock.now_ns(),
                        wants=Wants(options=None, tensor_indices=(0, 1)),
                    )
                )
            answers.wait_for(requests)
            look(version)
        finally:
            assert version.close(HANG_GUARD_S) is not False
    finally:
        pool.close()
    assert fatal == []
    return rows, [answers.by_id[number] for number in range(1, requests + 1)]
