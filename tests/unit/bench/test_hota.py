"""HOTA of sequences whose value follows by hand from its definition, and of one that TrackEval has scored."""

import math

import numpy as np
import pytest

from forebay_server.bench.hota import Frame, hota, overlap_of


def sequence(true_ids, given_ids, overlap=1.0):
    """Frames with these ids; an answer overlaps only the object at its own place in the list."""
    frames = []
    for true, answered in zip(true_ids, given_ids, strict=True):
        both = np.zeros((len(true), len(answered)))
        np.fill_diagonal(both, overlap)
        frames.append(Frame(np.array(true, int), np.array(answered, int), both))
    return frames


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (sequence([[0, 1]] * 10, [[4, 2]] * 10), 1.0),
        # one object with two ids, five frames each: of ten frames each id covers half
        (sequence([[0]] * 10, [[0]] * 5 + [[1]] * 5), math.sqrt(0.5)),
        # two objects swap ids: five frames right, five of each side wrong: 5 / 15
        (sequence([[0, 1]] * 10, [[0, 1]] * 5 + [[1, 0]] * 5), math.sqrt(1 / 3)),
        # found in six of ten frames: both accuracies are 0.6
        (sequence([[0]] * 10, [[0]] * 6 + [[]] * 4), 0.6),
        # a false track beside the right one: half of all boxes are right
        (sequence([[0]] * 4, [[0, 1]] * 4), math.sqrt(0.5)),
        # one id for an object in frames 1 to 4 and for another one in frames 5 to 8: 4 / 8 for each
        (sequence([[0]] * 4 + [[1]] * 4, [[0]] * 8), math.sqrt(0.5)),
        # an overlap of 0.5 reaches the first 10 of 19 thresholds
        (sequence([[0]] * 4, [[0]] * 4, overlap=0.5), 10 / 19),
        (sequence([[0]] * 4, [[]] * 4), 0.0),
        (sequence([[]] * 4, [[0]] * 4), 0.0),
    ],
)
def test_values_worked_out_by_hand(frames, expected):
    assert hota(frames).hota == pytest.approx(expected)


def test_both_accuracies_are_given():
    score = hota(sequence([[0]] * 10, [[0]] * 5 + [[1]] * 3 + [[]] * 2))
    assert score.detection == pytest.approx(0.8)
    # five boxes of an id that covers 5 of 10, three of one that covers 3 of 10
    assert score.association == pytest.approx((5 * 0.5 + 3 * 0.3) / 8)


def test_the_id_that_fits_the_whole_sequence_is_matched():
    """In the last frame the other answer overlaps more, and the pair of the whole sequence still counts."""
    frames = sequence([[0]] * 5, [[0]] * 5, overlap=0.8)
    frames[-1] = Frame(np.array([0]), np.array([0, 1]), np.array([[0.7, 0.9]]))
    score = hota(frames)
    # the thresholds to 0.7 find all five, those to 0.8 the first four, of 5 objects and 6 answers
    detection = (14 * 5 / 6 + 2 * 4 / 7) / 19
    assert score.detection == pytest.approx(detection)


def arithmetic_sequence():
    """Forty frames of up to 7 objects and 9 ids, with overlaps from an arithmetic of remainders."""
    frames = []
    for time in range(40):
        true = np.array([each for each in range(7) if (time * 3 + each * 5) % 8], int)
        given = np.array([each for each in range(9) if (time * 7 + each * 11) % 5], int)
        both = (true[:, None] * 31 + given * 17 + time * 7) % 97 / 300
        is_same = (true[:, None] + (time // 15) * (true[:, None] % 2)) % 9 == given
        frames.append(Frame(true, given, np.where(is_same, 0.4 + (time * 13 % 60) / 100, both)))
    return frames


def test_the_score_is_that_of_trackeval():
    """HOTA, DetA and AssA of TrackEval 1.3.0 for this sequence."""
    score = hota(arithmetic_sequence())
    assert [score.hota, score.detection, score.association] == pytest.approx(
        [0.3472599097638601, 0.38576220095767644, 0.32053423003620074], rel=1e-12
    )


def test_overlap_of_boxes():
    boxes = np.array([[0, 0, 10, 10]], float)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    assert overlap_of(boxes, others)[0] == pytest.approx([1, 1 / 3, 0])
