"""A camera that goes away is opened again with longer and longer pauses, and given up after a minute."""

import pytest

from forebay_server.service.cli.reopening import GIVE_UP_AFTER_S, Reopening, may_come_back
from forebay_server.service.cli.video import Source, SourceError, SourceInfo


class SteppedClock:
    def __init__(self):
        self.now = 0

    def now_ns(self):
        return self.now

    def sleep_until(self, until_ns):
        self.now = max(self.now, until_ns)


class Frames(Source):
    def __init__(self, frames, encoding=None, parameter_sets=b""):
        super().__init__(SourceInfo("gate", True, 25.0, 0))
        self.frames = list(frames)
        self.encoding, self.parameter_sets = encoding, parameter_sets
        self.is_closed = False

    def _read(self):
        return self.frames.pop(0) if self.frames else None

    def close(self):
        self.is_closed = True


def reopening(first, later, clock, told):
    """`later`: sources, or None for a try that fails."""
    tries = iter(later)

    def reopen():
        found = next(tries, None)
        if found is None:
            raise SourceError("not there")
        return found

    return Reopening(first, reopen, clock, told.append)


def test_frames_go_on_after_failed_tries():
    clock, told, first = SteppedClock(), [], Frames("ab")
    source = reopening(first, [None, None, Frames("c"), Frames("d")], clock, told)
    assert [source.read() for _ in range(4)] == ["a", "b", "c", "d"]
    assert first.is_closed
    assert clock.now == (0.5 + 1 + 2 + 0.5) * 1e9
    assert [line.split("gate ")[1].split(";")[0] for line in told] == ["went away", "is there again"] * 2
    assert (source.shortfall, source.read_frames) == ("", 4)


def test_a_camera_that_stays_away_ends_the_stream_with_a_word():
    clock, told = SteppedClock(), []
    source = reopening(Frames("a"), [], clock, told)
    assert list(source) == ["a"]
    assert clock.now <= GIVE_UP_AFTER_S * 1e9
    assert source.shortfall == "gate went away and did not come back within 60 s"


def test_a_camera_that_comes_back_without_a_frame_is_given_up_too():
    clock, told = SteppedClock(), []
    source = reopening(Frames("a"), (Frames("") for _ in range(100)), clock, told)
    assert list(source) == ["a"]
    assert clock.now <= GIVE_UP_AFTER_S * 1e9
    assert len(told) < 20


def test_another_video_ends_the_frames_and_the_next_read_begins_with_it():
    clock, told = SteppedClock(), []
    later = [
        Frames("b", "h264", b"sets"),
        Frames("", "h265", b"sets"),
        Frames("cd", "h265", b"sets"),
        Frames("e", "h265"),
    ]
    source = reopening(Frames("a", "h264", b"sets"), later, clock, told)
    assert (list(source), source.has_changed, source.encoding) == (["a", "b"], True, "h265")
    assert "sends another video than before (h265)" in told[-1]
    assert (list(source), source.has_changed, source.parameter_sets) == (["c", "d"], True, b"")
    assert source.shortfall == ""
    assert (list(source), source.has_changed) == (["e"], False)
    assert "did not come back" in source.shortfall


@pytest.mark.parametrize(
    ("name", "answer"),
    [("rtsp://camera/1", True), ("rtsps://camera/1", True), ("http://host/clip.mp4", False), ("clip.mp4", False)],
)
def test_only_cameras_come_back(name, answer):
    assert may_come_back(name) is answer
