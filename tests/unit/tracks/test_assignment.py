"""Pairs are those with the largest sum, and a missing library is a clear message."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forebay_server.service.tracks.assignment import TrackingUnavailableError, best_pairs
from forebay_server.service.tracks.settings import TrackSettings
from forebay_server.service.tracks.tracker import Tracker

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    elements=st.sampled_from((0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0)),
)


def best_sum(similarity, least):
    """By trying every assignment."""
    gain = np.where(similarity > least, similarity, 0)
    gain = gain if gain.shape[0] <= gain.shape[1] else gain.T
    rows = range(gain.shape[0])
    return max(gain[rows, list(chosen)].sum() for chosen in itertools.permutations(range(gain.shape[1]), len(rows)))


@given(MATRICES, st.sampled_from((0.0, 0.2, 0.4)))
def test_no_other_choice_has_a_larger_sum(similarity, least):
    pairs = best_pairs(similarity, least)
    assert similarity[pairs].sum() == pytest.approx(best_sum(similarity, least))


@given(MATRICES, st.sampled_from((0.0, 0.2, 0.4)))
def test_every_pair_is_allowed_and_disjoint(similarity, least):
    pairs = best_pairs(similarity, least)
    assert (similarity[pairs] > least).all()
    assert len(set(pairs.rows)) == len(set(pairs.columns)) == len(pairs.rows)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_pair(shape):
    assert best_pairs(np.empty(shape, np.float32), 0.2).rows.size == 0


def test_the_larger_sum_wins_over_the_best_single_pair():
    pairs = best_pairs(np.array([[0.9, 0.8], [0.8, 0.0]], np.float32), 0.2)
    assert sorted(zip(*pairs, strict=True)) == [(0, 1), (1, 0)]


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "lap", None)
    with pytest.raises(TrackingUnavailableError, match=r"tracks need lap, .* pip install .*track"):
        Tracker(TrackSettings())
