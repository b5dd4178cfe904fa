"""Rules for every test.

- A test that leaves a thread or a child process behind fails (gRPC's own daemon threads excepted, by name).
- Order is random (pytest-randomly); its seed is in the header of the run and repeats it: `-p SEED` of pytest-randomly.
- Hypothesis has three profiles, chosen by HYPOTHESIS_PROFILE: `dev` (default), `ci` (always the same examples) and
  `nightly`. None has a deadline: machines differ.
- Asynchronous code is tested by `asyncio.run(...)` inside a plain test: a loop per test, no plugin, nothing hidden.
- Processes that tests start heed SIGHUP and SIGINT, even where the run itself ignores them (`nohup`, `make test &`).
- Files that servers keep between runs go to a folder of the session, never to the user's cache.
- Everything below tests/heavy is heavy: `make test-all` runs it, two tests at a time unless they have the mark `alone`;
  `make test` does not. Everything below tests/soak is a soak test: `make test-soak` runs it.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import hypothesis
import pytest

from tests.support.processes import child_pids, leaked_processes
from tests.support.threads import leaked_threads

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=75, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("nightly", max_examples=20_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for tests that import onnxruntime themselves

for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:  # children inherit that, and no handler
        signal.signal(number, lambda *_: None)

HEAVY = Path(__file__).parent / "heavy"
SOAK = Path(__file__).parent / "soak"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HEAVY):
            item.add_marker(pytest.mark.heavy)
        if item.path.is_relative_to(SOAK):
            item.add_marker(pytest.mark.soak)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Servers keep measured costs: those of tests in a folder of their own, not in the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def no_leaked_log_configuration():
    yield
    structlog = sys.modules.get("structlog")  # environments of foreign clients have none
    if structlog is not None and structlog.is_configured():  # by a command that a test ran in this process
        from tests.support.logs import forget_configuration

        forget_configuration()


@pytest.fixture(autouse=True)
def no_leaked_threads():
    before = set(threading.enumerate())
    yield
    leaked = leaked_threads(before)
    if leaked:
        pytest.fail(f"threads left behind: {', '.join(sorted(thread.name for thread in leaked))}")


@pytest.fixture(autouse=True)
def no_leaked_processes():
    before = child_pids()
    yield
    leaked = leaked_processes(before)
    if leaked:
        pytest.fail(f"child processes left behind: {'; '.join(leaked)}")
