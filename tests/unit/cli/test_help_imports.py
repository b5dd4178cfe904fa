"""A help text comes quickly: its command imports what it needs when it runs."""

import pytest

from forebay_server.service.cli.commands import COMMANDS
from tests.support.imports import run_command

HELP = [[], *([name] for name in COMMANDS), ["load", "search"], ["engine", "build"], ["models", "list"]]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_a_help_text_imports_nothing_that_only_its_command_needs(words):
    """Typer itself imports pydantic for the options of a command, but not for the list of commands."""
    ended = run_command(*words, "--help")
    assert ended.code == 0
    assert ended.output.startswith("Usage: ")
    costly = {"grpc", "numpy", "cv2", "onnxruntime", "google.protobuf", "structlog", "pydantic_settings", "psutil"}
    costly |= {"asyncio", "ssl", "http.client", "urllib.request", "multiprocessing"}
    assert not (costly if words else {*costly, "pydantic"}) & ended.imported
