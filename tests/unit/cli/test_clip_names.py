"""The clip of each camera has a file of its own."""

from pathlib import Path

import pytest

from forebay_server.service.cli.stream_output import clips_for


def test_names_of_cameras_become_part_of_the_files_names():
    clips = clips_for(Path("out/boxes.mp4"), ["gate 1", "yard"])
    assert [clip.path for clip in clips] == [Path("out/boxes-gate-1.mp4"), Path("out/boxes-yard.mp4")]
    assert clips_for(None, ["gate", "yard"]) == [None, None]


@pytest.mark.parametrize("cameras", [["cam 1", "cam-1"], ["a?b", "a/b"], ["?", "gate"]])
def test_names_that_give_one_file_are_refused(cameras):
    with pytest.raises(ValueError, match="give --camera for each source"):
        clips_for(Path("boxes.mp4"), cameras)
