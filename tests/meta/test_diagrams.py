"""The generated parts of the documentation match the code."""

import pytest

from forebay_server.service.pipeline.slots import TRANSITIONS
from tests.support.repository import ROOT, tracked_files
from tools.diagrams import FRAGMENTS, refresh


def test_generated_parts_of_the_pages_are_fresh():
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    stale = [path.relative_to(ROOT).as_posix() for path in pages if refresh(path.read_text()) != path.read_text()]
    assert stale == [], "run `make diagrams`"


def test_diagram_of_slots_has_every_transition():
    edges = {(state.name, after.name) for state, afters in TRANSITIONS.items() for after in afters}
    drawn = {tuple(line.split(" --> ")) for line in map(str.strip, FRAGMENTS["slot-states"]().splitlines())}
    assert edges == {edge for edge in drawn if len(edge) == 2 and edge[0] != "[*]"}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_refresh_replaces_what_lies_between_the_marks(name):
    page = f"before\n<!-- generated: {name} -->\nstale\n<!-- end generated -->\nafter\n"
    fresh = refresh(page)
    assert "stale" not in fresh
    assert FRAGMENTS[name]() in fresh
    assert fresh.startswith("before\n")
    assert fresh.endswith("after\n")
    assert refresh(fresh) == fresh
