"""Every test here is marked `gpu`. `measured` puts numbers into the table that tests/gpu/run.py prints."""

from pathlib import Path

import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import BackendUnavailableError
from tests.support.rig import rig_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def measured(record_property):
    """Call it with text: it appears beside the test's result."""
    return lambda text: record_property("measured", text)


@pytest.fixture(autouse=True)
def needs_gpu():
    try:
        open_device("cuda", clock=MonotonicClock()).close()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def rig(needs_gpu):
    with rig_of(open_device("cuda", clock=MonotonicClock())) as rig:
        yield rig
