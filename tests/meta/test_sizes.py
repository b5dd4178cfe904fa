"""Files stay small enough to be read in one go."""

import statistics

from tests.support.repository import is_generated, tracked_files

MAX_LINES = 400  # 300 is the aim; a longer file has a reason, and a file longer than this limit is two things
MAX_MEDIAN_LINES = 150


def code_files():
    return [
        path
        for path in tracked_files()
        if path.suffix == ".py" and not is_generated(path) and "tests" not in path.parts and path.name != "__init__.py"
    ]


def line_count(path):
    return len(path.read_text().splitlines())


def test_no_file_is_too_long():
    assert {path.name: line_count(path) for path in code_files() if line_count(path) > MAX_LINES} == {}


def test_median_file_is_short():
    assert statistics.median(line_count(path) for path in code_files()) <= MAX_MEDIAN_LINES
