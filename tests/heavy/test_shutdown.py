"""SIGTERM under load, twenty times in a row: no frame is lost, whenever it comes."""

import asyncio
import signal

from tests.support.real_server import simulated
from tests.support.serve_process import terminate_under_load

TIMES = 20


def test_sigterm_under_load_loses_nothing_twenty_times_in_a_row(tmp_path):
    repository = simulated(tmp_path, alpha_ms=1)
    for _ in range(TIMES):
        assert asyncio.run(terminate_under_load(repository, signal.SIGTERM)) >= 60
