"""Frames offered to a running server, with the CPU times that its threads and other programs took meanwhile."""

import asyncio
import time
from dataclasses import dataclass

import psutil

from forebay_server.bench.plan.thread_times import ThreadTimes, machine_busy_s, own_busy_s, thread_times
from forebay_server.bench.server_process import RunningServer
from forebay_server.loadtest.measure import measure
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.report import Document
from forebay_server.service.cores import usable_cores


@dataclass(frozen=True, slots=True)
class Offered:
    """One offer.

    Attributes:
        document: the report of `forebay load`.
        used: by the server's threads.
        passed_s: seconds from begin to end.
        others_cores: that other programs used, on average; 0 where this process may not use every core, because
            others have cores of their own then.
    """

    document: Document
    used: ThreadTimes
    passed_s: float
    others_cores: float

    @property
    def camera_s(self) -> float:
        """CPU seconds of the cameras' program."""
        return float(sum(self.document["generator"]["cpu_shares"]) * self.document["duration_s"])


def offer(server: RunningServer, options: LoadOptions) -> Offered:
    """Offer the frames of the options. Blocks: for as long as they say, and a little more.

    Raises:
        LoadTestError: the server does not answer.
    """
    pids = (server.process.pid, *server.others)
    before, busy_s, started_s = thread_times(pids), machine_busy_s() - own_busy_s(), time.monotonic()
    document = asyncio.run(measure(options.job(), calibrate=False))
    used, passed_s = thread_times(pids).since(before), time.monotonic() - started_s
    others_s = machine_busy_s() - own_busy_s() - busy_s - used.total_s
    others_cores = max(0.0, others_s / passed_s) if psutil.cpu_count() == usable_cores() else 0.0
    return Offered(document, used, passed_s, others_cores)
