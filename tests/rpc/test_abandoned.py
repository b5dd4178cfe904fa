"""Streams abandoned at every stage of their life leave nothing: the short version, with a look at the tasks.

tests/heavy/test_abandoned.py does the same to a server in a separate process, for memory.
"""

import asyncio
import gc
import os
import threading
from collections import Counter
from pathlib import Path

from tests.support.abandoning import LEAVES, STAGES, abandon
from tests.support.loops import on_loop
from tests.support.real_server import assert_quiescent, eventually, real_server, simulated

ONCE = len(STAGES) * len(LEAVES)


def held():
    """Threads, file descriptors and tasks by kind."""
    gc.collect()
    tasks = Counter(task.get_coro().__qualname__.rpartition(".")[2] for task in asyncio.all_tasks())
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), tasks


def is_more(now, before):
    """Whether anything is held beyond what was before. Less is no leak: then the last streams were about to end."""
    (threads, descriptors, tasks), (threads_before, descriptors_before, tasks_before) = now, before
    return threads > threads_before or descriptors > descriptors_before or bool(tasks - tasks_before)


@on_loop
async def test_abandoned_streams_leave_no_thread_no_descriptor_and_no_task(tmp_path):
    async with real_server(simulated(tmp_path, alpha_ms=1)) as running:
        await abandon(running.address, ONCE)  # objects that are made on first use
        await assert_quiescent(running)
        before = held()
        await abandon(running.address, 3 * ONCE)
        await assert_quiescent(running)
        await eventually(lambda: not is_more(held(), before))
        assert running.server.frames.outcomes.total() == running.server.frames.frames_received > 0
        assert os.getpid() == running.ready.pid
