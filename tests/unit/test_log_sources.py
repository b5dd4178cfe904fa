"""Output that Python would write to standard error by itself is in the log, a line each, escaped.

One process per case.
"""

import json
import subprocess
import sys

import pytest

from tests.support.guard import HANG_GUARD_S

BEGIN = """
import asyncio, gc, logging, sys, threading, traceback, warnings
from forebay_server.service.log import configure_logs
from forebay_server.service.log_sources import take_over
configure_logs("json", "info")
take_over()
FORGED = 'x\\n{"event": "forged"}\\x1b[2J'

class Bad:
    def __del__(self):
        raise RuntimeError(FORGED)

async def fail():
    raise RuntimeError(FORGED)

async def forget():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()

def end():
    raise RuntimeError(FORGED)
"""
CASES = {
    "logging": ("logging.getLogger('library').warning('%s', FORGED)", "a library reports"),
    "logging with arguments that do not fit": ("logging.warning('%d', FORGED)", "a library reports"),
    "a warning": ("warnings.warn(FORGED)", "a library reports"),
    "a task of asyncio that is not awaited": ("asyncio.run(forget())", "a library reports"),
    "a thread": (
        "thread = threading.Thread(target=end); thread.start(); thread.join()",
        "a thread ended by an exception",
    ),
    "a finalizer": ("Bad()", "exception ignored"),
    "the main thread": ("end()", "uncaught exception"),
    "a text that is printed": ("print(FORGED, file=sys.stderr)", "printed to standard error"),
    "a printed traceback": ("try: end()\nexcept RuntimeError: traceback.print_exc()", "printed to standard error"),
    "a part of a line": ("sys.stderr.write('-' * 100_000)", "printed to standard error"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_an_event(case):
    program, event = CASES[case]
    command = [sys.executable, "-c", BEGIN + program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HANG_GUARD_S)
    assert done.returncode == (1 if case == "the main thread" else 0), done.stderr
    assert "\x1b" not in done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {found["event"] for found in events} == {event}
    assert all(len(line) < 20_000 for line in done.stderr.splitlines())
