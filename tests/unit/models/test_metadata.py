"""The metadata of YOLO exporters, honest and not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.models.derive.metadata import MAX_CLASSES, Hints, read_hints

POSE = {
    "task": "pose",
    "stride": "32",
    "names": "{0: 'person'}",
    "imgsz": "[480, 640]",
    "kpt_shape": "[17, 3]",
    "channels": "3",
    "end2end": "False",
    "args": "{'batch': 1, 'half': False, 'nms': True}",
}


def test_what_an_exporter_writes_is_read():
    assert read_hints(POSE) == Hints(
        task="pose",
        labels=("person",),
        image_size=(640, 480),
        keypoint_shape=(17, 3),
        channels=3,
        is_end_to_end=True,
        is_yolo=True,
    )


def test_other_files_have_no_hints():
    assert read_hints({}) == read_hints({"names": "['a']"}) == read_hints({"producer": "pytorch"}) == Hints()


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("['a', 'b']", ("a", "b")),
        ("{2: 'c', 0: 'a'}", ("a", "1", "c")),
        ('{0: "it\'s (one), or [two]"}', ("it's (one), or [two]",)),
        ("{0: 7}", ("7",)),
        ("{0: 'línea, otra'}", ("línea, otra",)),
        ("{0: 'می\u200cرود', 1: '行\u3000列', 2: 'a\u2028b'}", ("می\u200cرود", "行\u3000列", "a\u2028b")),
        ("{0: 'a', 1: '', 2: ' c '}", ("a", "1", "c")),
    ],
)
def test_names_may_be_a_list_or_a_dict_with_gaps(names, labels):
    assert read_hints({"names": names, "stride": "32"}).labels == labels


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": str(dict.fromkeys(range(MAX_CLASSES + 1), "a"))}, f"of {MAX_CLASSES + 1} classes"),
        ({"names": "{" + "0: 'a', " * 200_000 + "}"}, "longer than"),
        ({"names": "__import__('os').system('true')"}, "no list or dict of plain values"),
        ({"names": "{0: 0x" + "f" * 5000 + "}"}, "without a name of at most"),
        ({"names": "{0: 'cat\u202etac'}"}, "none of control"),
        ({"names": "'" + "\\'" * 500_000}, "no list or dict of plain values"),  # in linear time
        ({"names": "{0: open('x')}"}, "no list or dict of plain values"),
        ({"names": "[" * 1000}, "nested more than"),
        ({"names": "-" * 100_000 + "1"}, "no list or dict"),
        ({"names": "{-1: 'a'}"}, "numbers of classes"),
        ({"names": "{10**9: 'a'}"}, "no list or dict of plain values"),
        ({"names": "{1000000000: 'a'}"}, "numbers of classes"),
        ({"names": "{0: 'a\\nb'}"}, "none of control"),
        ({"names": "{0: 'a\\x1b[2Jb'}"}, "none of control"),
        ({"names": "{0: '\\ud800'}"}, "none of control"),
        ({"names": "{0: ['a']}"}, "without a name of at most"),
        ({"names": "{}"}, "no list or dict of names"),
        ({"imgsz": "[-640, 640]"}, "not a height and a width"),
        ({"imgsz": "[640, 640, 3]"}, "not a height and a width"),
        ({"imgsz": "True"}, "not a height and a width"),
        ({"kpt_shape": "[17, 4]"}, "2 or 3 values"),
        ({"kpt_shape": "[0, 3]"}, "number of keypoints"),
        ({"channels": "4"}, "neither 1 nor 3"),
        ({"task": "dance"}, "none of detect, segment"),
        ({"end2end": "perhaps"}, "neither True nor False"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_and_the_others_count(changes, words):
    hints = read_hints({**POSE, **changes})
    (fault,) = hints.faults
    assert words in fault
    assert len(fault) < 250
    kept = {"names": hints.labels, "imgsz": hints.image_size, "task": hints.task}
    assert all(value is not None for key, value in kept.items() if key not in changes)


@given(st.dictionaries(st.sampled_from(sorted(POSE)), st.text(max_size=200)))
def test_no_metadata_raises(changes):
    hints = read_hints({**POSE, **changes})
    assert hints.labels is None or all(hints.labels)
