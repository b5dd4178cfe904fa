"""Tests over a real server run in both forms of it: all in one process, and a front end before an engine process."""

import pytest

from tests.support import forms

BOTH_FORMS = frozenset(
    {
        "test_streams",
    }
)
"""Modules whose tests run in both forms. The others start processes of their own, or are about one side only."""


def pytest_generate_tests(metafunc):
    if "form" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in BOTH_FORMS:
        marker = metafunc.definition.get_closest_marker("one_process")
        names = [forms.ONE_PROCESS] if marker else [forms.ONE_PROCESS, forms.FRONT_END]
        metafunc.parametrize("form", names, indirect=True, ids=["one", "two"][: len(names)])


@pytest.fixture(autouse=True)
def form(request):
    """Which form servers have in the test."""
    forms.current = getattr(request, "param", forms.ONE_PROCESS)
    yield forms.current
    forms.current = forms.ONE_PROCESS
