"""Tests over a real server run in both forms of it: all in one process, and a front end before an engine process."""

import pytest

from tests.support import forms

BOTH_FORMS = frozenset(
    {
        "test_abandoned",
        "test_log_level",
        "test_shutdown",
        "test_bad_input",
        "test_bad_pictures",
        "test_chaos",
        "test_cli_models",
        "test_client_server",
        "test_clients_gone",
        "test_compression",
        "test_counting",
        "test_detector",
        "test_device_pictures",
        "test_dirty_memory",
        "test_drain",
        "test_elsewhere",
        "test_faults",
        "test_health",
        "test_health_command",
        "test_heavy_requests",
        "test_inference_calls",
        "test_inference_cuda_memory",
        "test_inference_datatypes",
        "test_inference_lifecycle",
        "test_inference_memory",
        "test_inference_memory_users",
        "test_inference_optional",
        "test_inference_repositories",
        "test_inference_settings",
        "test_inference_situations",
        "test_inference_statistics",
        "test_inference_status",
        "test_inference_streams",
        "test_inference_unbound",
        "test_inference_unix_socket",
        "test_limits",
        "test_long_messages",
        "test_memory_of_others",
        "test_moving",
        "test_observe",
        "test_partial_start",
        "test_pictures",
        "test_reception",
        "test_reflection",
        "test_restrictions",
        "test_rich_results",
        "test_sent_models",
        "test_shares",
        "test_slow_readers",
        "test_streams",
        "test_tls",
        "test_traces",
        "test_tracks",
        "test_video",
        "test_waiting_for_the_loop",
    }
)
"""Modules whose tests run in both forms, except tests with the mark one_process, which has the reason. Others
start processes of their own, or are about one side only."""

TESTS_IN_BOTH_FORMS = frozenset(
    {
        "test_a_signal_under_load_loses_nothing_without_a_log",
        "test_sigterm_ends_a_load_and_the_process_in_order",
        "test_sigterm_during_a_load_with_files_leaves_none_of_them",
    }
)
"""Of other modules, whose tests start processes and take long."""


def is_in_both_forms(metafunc):
    module = metafunc.module.__name__.rpartition(".")[2]
    return module in BOTH_FORMS or metafunc.definition.name in TESTS_IN_BOTH_FORMS


def pytest_generate_tests(metafunc):
    if "form" in metafunc.fixturenames and is_in_both_forms(metafunc):
        marker = metafunc.definition.get_closest_marker("one_process")
        names = [forms.ONE_PROCESS] if marker else [forms.ONE_PROCESS, forms.FRONT_END]
        metafunc.parametrize("form", names, indirect=True, ids=["one", "two"][: len(names)])


@pytest.fixture(autouse=True)
def form(request):
    """Which form servers have in the test."""
    forms.current = getattr(request, "param", forms.ONE_PROCESS)
    yield forms.current
    forms.current = forms.ONE_PROCESS
