"""The table of backends agrees with itself, and no page or contract lacks a backend."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from forebay_server.engines.backends import BACKENDS
from tests.support.repository import ROOT

every_backend = pytest.mark.parametrize("name", BACKENDS)


@every_backend
def test_the_engine_is_in_the_file_of_its_name(name):
    engine = BACKENDS[name].engine
    assert engine.module == f"forebay_server.engines.engine_{name}"
    assert f"\nclass {engine.class_name}:" in Path(importlib.util.find_spec(engine.module).origin).read_text()


def test_a_file_a_platform_and_a_name_mean_one_backend():
    rows = BACKENDS.values()
    suffixes = [{Path(file).suffix for file in row.filenames} for row in rows]
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(suffixes, 2))
    assert len({row.platform for row in rows}) == len(BACKENDS)
    names = [*BACKENDS, *(alias for row in rows for alias in row.aliases)]
    assert len(set(names)) == len(names)


@every_backend
def test_the_pages_name_it_and_its_files(name):
    (row,) = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| backend |")]
    assert name in row
    files = " or ".join(f"`{file}`" for file in BACKENDS[name].filenames)
    assert not files or f"{files} {name}" in (ROOT / "docs/models.md").read_text()


@every_backend
def test_it_has_a_case_of_the_engine_contract(name):
    cases = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if "EngineCase(" in path.read_text()]
    assert [text for text in cases if f'"{name}"' in text]
