"""Due times of files that are sent as live cameras, and the names of cameras."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.cli.stream_plan import LONGEST_LAG_NS, Pace
from forebay_server.service.cli.stream_sources import MOST_NAME_CHARACTERS, is_endless, names_of

SECOND_NS = 1_000_000_000


def test_a_file_is_sent_at_its_rate():
    pace = Pace(10)
    assert [pace.wait_s(7) for _ in range(4)] == [0, 0.1, 0.2, pytest.approx(0.3)]


def test_a_frame_that_was_read_late_does_not_delay_the_next():
    pace = Pace(10)
    assert pace.wait_s(0) == 0
    assert pace.wait_s(150_000_000) == 0
    assert pace.wait_s(150_000_000) == pytest.approx(0.05)


def test_a_file_that_is_far_behind_goes_on_from_now():
    pace = Pace(10)
    pace.wait_s(0)
    late_ns = 100_000_000 + LONGEST_LAG_NS + 1
    assert pace.wait_s(late_ns) == 0
    assert pace.wait_s(late_ns) == pytest.approx(0.1)


def test_without_a_rate_every_frame_is_due():
    assert [Pace(0).wait_s(now_ns) for now_ns in (5, 5, 6)] == [0, 0, 0]


@given(
    fps=st.floats(0.1, 1000),
    steps=st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=50),
)
def test_no_frame_is_early_and_none_waits_longer_than_an_interval(fps, steps):
    pace = Pace(fps)
    interval_s = round(1e9 / fps) / 1e9
    now_ns, sent_ns = 0, []
    for step in steps:
        now_ns += step
        wait_s = pace.wait_s(now_ns)
        assert 0 <= wait_s <= interval_s
        now_ns += round(wait_s * 1e9)
        sent_ns.append(now_ns)
    # over any span there are no more frames than the rate gives, but for frames that a lag of a second had held back
    most = (sent_ns[-1] - sent_ns[0] + LONGEST_LAG_NS) / (interval_s * 1e9) + 1
    assert len(sent_ns) - 1 <= most


def test_names_are_those_of_the_sources_and_differ():
    sources = ["a/cam.mp4", "b/cam.mp4", "0", "-", "rtsp://me:secret@host/1?x=secret", "/dev/video0", "x" * 80]
    names = names_of(sources)
    assert names[:6] == ["cam.mp4", "cam.mp4 (2)", "device 0", "standard input", "rtsp://host/1", "device /dev/video0"]
    assert names[6] == "x" * 64


@given(st.lists(st.sampled_from(["a/x", "b/x", "x (2)", "c/x (2)", "x (2) (2)", "y" * 80, "z/" + "y" * 80])))
def test_names_never_repeat(sources):
    names = names_of(sources)
    assert len(set(names)) == len(sources)
    assert all(0 < len(name) <= MOST_NAME_CHARACTERS for name in names)


def test_the_folder_where_one_stands_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names_of(["."]) == [tmp_path.name]


@pytest.mark.parametrize(("source", "expected"), [("a.mp4", False), ("7", True), ("rtsp://x", True), ("-", True)])
def test_what_has_no_beginning(source, expected):
    assert is_endless(source) is expected
