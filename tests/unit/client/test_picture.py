"""A picture of any common form becomes a frame, or is refused with the remedy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.models import Model, models_of
from forebay.client.picture import as_frame
from forebay.wire import inference_pb2 as wire

JPEG, PNG = b"\xff\xd8\xff\xe0 and so on", b"\x89PNG\r\n\x1a\n and so on"
COLOUR = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("picture", "encoding", "expected"),
    [
        (COLOUR, None, "bgr8"),
        (COLOUR, "rgb8", "rgb8"),
        (COLOUR[:, :, 0], None, "mono8"),
        (JPEG, None, "jpeg"),
        (bytearray(PNG), None, "png"),
        (memoryview(PNG), "png", "png"),
    ],
)
def test_the_form_of_a_picture_is_its_encoding(picture, encoding, expected):
    found, frame = as_frame(picture, encoding)
    assert found == expected
    assert frame is picture


def test_a_path_is_read(tmp_path):
    path = tmp_path / "street.jpg"
    path.write_bytes(PNG)  # the contents count, not the name
    assert as_frame(path, None) == as_frame(str(path), None) == ("png", PNG)
    with pytest.raises(FileNotFoundError):
        as_frame(tmp_path / "none.jpg", None)


@pytest.mark.parametrize(
    ("picture", "encoding", "words"),
    [
        (COLOUR.astype(np.float32), None, "values are float32; give uint8"),
        (np.zeros((4, 6, 4), np.uint8), None, "drop the fourth channel"),
        (np.zeros((3, 4, 6), np.uint8), None, "put the channels last"),
        (np.zeros((1, 4, 6, 3), np.uint8), None, r"write picture\[0\]"),
        (np.zeros(12, np.uint8), None, r"shape \(12,\), not \(height, width, 3\)"),
        (np.zeros((0, 6, 3), np.uint8), None, "shape"),
        (COLOUR, "mono8", "is bgr8 or rgb8, not mono8"),
        (COLOUR[:, :, 0], "bgr8", "is mono8, not bgr8"),
        (b"GIF89a", None, "the bytes are no JPEG or PNG file"),
        (b"", None, "the bytes are no JPEG or PNG file"),
        (JPEG, "png", "the bytes are a jpeg file, not png"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_remedy(picture, encoding, words):
    with pytest.raises(ValueError, match=words):
        as_frame(picture, encoding)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt is no JPEG or PNG file"):
        as_frame(path, None)


@pytest.mark.parametrize("picture", [None, 7, [[1, 2], [3, 4]]])
def test_other_types_are_refused(picture):
    with pytest.raises(TypeError, match="a picture is a numpy array, the bytes of a JPEG or PNG file, or a path"):
        as_frame(picture, None)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_file_by_their_first_bytes_or_refused(data):
    is_file = data.startswith((JPEG[:3], PNG[:8]))
    try:
        assert as_frame(data, None)[0] in {"jpeg", "png"}
    except ValueError:
        assert not is_file
    else:
        assert is_file


def test_models_come_in_the_order_of_the_server():
    response = wire.RepositoryIndexResponse()
    response.models.add(name="b", version="2", state="READY")
    response.models.add(name="a", reason="no version")
    models = models_of(response.SerializeToString())
    assert models == (Model("b", "2", "READY", ""), Model("a", "", "", "no version"))
    assert [model.is_ready for model in models] == [True, False]
