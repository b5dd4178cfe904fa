"""No tracked file names a machine, a user's folder or a package index, or holds a secret."""

import re

import pytest

from tests.support.repository import ROOT, tracked_files

FORBIDDEN = {
    "a folder of one machine": r"(?<![\w.~$}])/(?:home|Users|root|work|mnt)/\w",
    "a package index": r"--(?:extra-)?index-url|--find-links|-index-url *=",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE " + "KEY-----",
    "a TODO without an issue's number": r"\b(?:TODO|FIXME|XXX)\b(?! ?\(#\d+\))",
    "a merge conflict": r"^(?:<{7} |>{7} )",
}
EXEMPT = {"tests/meta/test_tracked_files.py", "LICENSE"}


def texts():
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        data = path.read_bytes()
        if name not in EXEMPT and b"\0" not in data[:8192]:
            yield name, data.decode(errors="replace")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what):
    pattern = re.compile(FORBIDDEN[what], flags=re.MULTILINE)
    found = [f"{name}: {match[0]!r}" for name, text in texts() if (match := pattern.search(text))]
    assert found == []


def test_no_large_file_is_tracked_by_accident():
    large = {path.name: path.stat().st_size for path in tracked_files() if path.stat().st_size > 1_000_000}
    assert set(large) <= {"pedestrians.mp4", "model.onnx", "demo.png"}


def test_text_files_end_with_one_newline():
    suffixes = (".py", ".md", ".toml", ".yaml", ".yml", ".proto", ".sh", "Makefile", "Dockerfile")
    wrong = [
        name
        for name, text in texts()
        if name.endswith(suffixes) and text and (not text.endswith("\n") or text.endswith("\n\n"))
    ]
    assert wrong == []
