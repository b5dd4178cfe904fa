"""Files of every common container, whole and cut: a cut one is found, wherever the cut is, and a whole one never."""

import av
import numpy as np
import pytest

from forebay_server.service.cli.file_end import ends_early
from forebay_server.service.cli.packets import open_packets
from forebay_server.service.cli.video import SourceError, open_source

FRAMES = 30
CONTAINERS = {
    "a.mp4": {"options": {"movflags": "faststart"}},
    "fragments.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mkv": {},
    "a.webm": {"format": "matroska"},
    "a.flv": {},
    "a.avi": {"codec": "mjpeg"},
    "a.ts": {"format": "mpegts"},
    "a.m2ts": {"format": "mpegts", "options": {"mpegts_m2ts_mode": "1"}},
}


def write_video(path, codec="libx264", **container):
    with av.open(str(path), "w", **container) as file:
        track = file.add_stream(codec, rate=10, options={"g": "10"} if codec == "libx264" else {})
        track.width, track.height = 64, 48
        track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        noise = np.random.default_rng(1).integers(0, 255, (FRAMES, 48, 64, 3), np.uint8)
        for picture in noise:
            file.mux(track.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(track.encode(None))
    return path


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_cut_is_found_wherever_it_is(tmp_path, name):
    path = write_video(tmp_path / name, **CONTAINERS[name])
    data = path.read_bytes()
    assert not ends_early(path)
    packet = {"a.ts": 188, "a.m2ts": 192}.get(name, len(data))
    for place in np.linspace(len(data) // 4, len(data) - 9, 50, dtype=int):
        cut = place + (place % packet == 0)  # between two transport packets nothing shows it
        path.write_bytes(data[:cut])
        assert ends_early(path), f"{cut} of {len(data)} bytes"


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_words_about_a_cut_file_say_how_much_is_there(tmp_path, name):
    path = write_video(tmp_path / name, **CONTAINERS[name])
    data = path.read_bytes()
    for open_it in (open_packets, open_source):
        path.write_bytes(data)
        with open_it(str(path)) as source:
            assert len(list(source)) == FRAMES
            assert source.shortfall == ""
        path.write_bytes(data[: len(data) * 93 // 100 // 192 * 192 + 5])
        with open_it(str(path)) as source:
            there = len(list(source))
            assert FRAMES // 2 < there < FRAMES
            assert f"{there}" in source.shortfall
            assert source.shortfall.startswith(f"{name} ")
            assert source.shortfall.endswith(": cut short or damaged")


def test_a_file_without_its_index_is_called_cut(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="it ends early, before its index: cut short"):
        open_source(str(path))


def test_sizes_that_are_left_open_and_bytes_after_the_end_are_no_cut(tmp_path):
    live = write_video(tmp_path / "live.mkv", options={"live": "1"})
    live.write_bytes(live.read_bytes()[:-100])
    assert not ends_early(live)
    longer = write_video(tmp_path / "a.mp4")
    longer.write_bytes(longer.read_bytes() + b"\0" * 20 + b"trailer of a camera")
    assert not ends_early(longer)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"FLV",
        b"RIFF",
        b"\x1aE\xdf\xa3",
        b"\x1aE\xdf\xa3\0",
        b"....ftyp",
        b"\0\0\0\1ftyp....",
        b"\0\0\0\1gE",
        b"GGG",
    ],
)
def test_other_files_are_not_judged(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert isinstance(ends_early(path), bool)
    assert not ends_early(tmp_path / "nowhere")
    assert not ends_early(tmp_path)
