import cv2
import numpy as np
import pytest

from forebay.encodings import LAYOUTS, VALUES
from forebay_server.loadtest import frames
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.frames import FrameSource, FramesSpec, pad_jpeg, pictures, tensors
from forebay_server.loadtest.target import Encoding


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30, 3), 80 * index, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.jpg").write_bytes(b"no picture either")
    return tmp_path


def test_every_stream_of_video_begins_at_a_keyframe():
    source = FrameSource(tuple(bytes([index]) for index in range(100)), Encoding.H264, 30, 20, "")
    assert [source.payload(source.first_index(stream))[0] for stream in range(5)] == [0, 30, 60, 90, 0]


def test_streams_of_pictures_begin_with_different_ones():
    source = FrameSource(tuple(bytes([index]) for index in range(100)), Encoding.JPEG, 30, 20, "")
    assert [source.payload(source.first_index(stream))[0] for stream in range(3)] == [0, 7, 14]


def test_a_folder_gives_its_pictures_in_the_order_of_their_names(folder):
    source = pictures(FramesSpec(source=str(folder)), Encoding.BGR8)
    assert [payload[0] for payload in source.payloads] == [0, 80, 160]
    assert (source.width, source.height) == (30, 20)
    assert len(source.payloads[0]) == 30 * 20 * 3


@pytest.mark.parametrize("encoding", [Encoding.JPEG, Encoding.PNG])
def test_pictures_are_resized_and_encoded(folder, encoding):
    source = pictures(FramesSpec(source=str(folder), size=(16, 8)), encoding)
    assert decoded(source.payloads[1]).shape == (8, 16, 3)
    assert abs(int(decoded(source.payloads[1])[0, 0, 0]) - 80) <= 2


def test_colours_are_swapped_for_rgb():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 0] = 200
    assert frames.encode(picture, Encoding.BGR8, 90)[:3] == bytes([200, 0, 0])
    assert frames.encode(picture, Encoding.RGB8, 90)[:3] == bytes([0, 0, 200])


def test_uncompressed_pictures_are_those_that_opencv_reads_back():
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:4], picture[4:] = (200, 60, 20), (20, 60, 200)
    for encoding, code in ((Encoding.MONO8, cv2.COLOR_GRAY2BGR), (Encoding.NV12, cv2.COLOR_YUV2BGR_NV12)):
        array = np.frombuffer(frames.encode(picture, encoding, 90), np.uint8)
        read_back = cv2.cvtColor(array.reshape(LAYOUTS[VALUES[encoding]].shape(12, 8)), code)
        wanted = picture if encoding is Encoding.NV12 else cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), code)
        assert np.abs(read_back.astype(int) - wanted).max() <= 2


def test_pictures_of_a_size_that_the_encoding_cannot_have_need_a_size(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(UsageError, match=r"--encoding nv12 needs an even width .*: give --size"):
        pictures(FramesSpec(source=str(tmp_path)), Encoding.NV12)
    assert len(pictures(FramesSpec(source=str(tmp_path)), Encoding.MONO8).payloads[0]) == 72


@pytest.mark.parametrize("missing", [0, 1, 4, 5, 100, 65_537, 200_000])
def test_a_padded_jpeg_is_the_same_picture_and_at_most_the_size_asked_for(missing):
    picture = frames.encode(np.full((16, 16, 3), 120, np.uint8), Encoding.JPEG, 85)
    padded = pad_jpeg(picture, len(picture) + missing)
    assert len(picture) + missing - 4 <= len(padded) <= len(picture) + missing
    assert np.array_equal(decoded(padded), decoded(picture))


def test_a_frame_of_a_burst_is_larger_and_indices_wrap():
    picture = frames.encode(np.full((16, 16, 3), 120, np.uint8), Encoding.JPEG, 85)
    source = FrameSource((picture,), Encoding.JPEG, 16, 16, "")
    assert source.payload(5) is picture
    assert len(source.payload(0, scale=4.0)) == pytest.approx(4 * len(picture), abs=4)
    assert len(source.payload(0, size_bytes=5000)) == pytest.approx(5000, abs=4)
    assert source.payload(0, size_bytes=10) is picture


def test_a_video_that_declares_more_frames_than_it_has_is_used_as_far_as_it_goes(tmp_path):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    rng = np.random.default_rng(0)
    for _ in range(30):
        writer.write(rng.integers(0, 255, (24, 32, 3), np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    source = pictures(FramesSpec(source=str(path)), Encoding.JPEG)
    assert 0 < len(source.payloads) < 30


def test_the_bundled_clip_is_the_default():
    source = pictures(FramesSpec(size=(64, 48)), Encoding.JPEG)
    assert "pedestrians.mp4" in source.note
    assert len(source.payloads) == frames.MAX_PICTURES


def test_synthetic_pictures_need_no_file():
    source = pictures(FramesSpec(source="synthetic", size=(64, 48)), Encoding.JPEG)
    assert len(set(source.payloads)) == 30


def test_tensors_have_the_size_asked_for_and_come_from_the_seed():
    assert tensors(100, 1).payloads == tensors(100, 1).payloads != tensors(100, 2).payloads
    assert {len(payload) for payload in tensors(100, 1).payloads} == {100}
    with pytest.raises(UsageError, match="--shape"):
        tensors(0, 1)


def test_sources_that_give_no_picture_are_usage_errors(tmp_path, capfd):
    with pytest.raises(UsageError, match="no video or folder"):
        pictures(FramesSpec(source=str(tmp_path / "none.mp4")), Encoding.JPEG)
    with pytest.raises(UsageError, match="no picture could be decoded"):
        pictures(FramesSpec(source=str(tmp_path)), Encoding.JPEG)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UsageError, match="no video that OpenCV can read"):
        pictures(FramesSpec(source=str(tmp_path / "text.mp4")), Encoding.JPEG)
    with pytest.raises(UsageError, match="cannot be sent as tensors"):
        frames.encode(np.zeros((2, 2, 3), np.uint8), Encoding.TENSOR, 85)


def test_raw_pictures_of_different_sizes_need_a_size(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="differ in size"):
        pictures(FramesSpec(source=str(tmp_path)), Encoding.RGB8)
