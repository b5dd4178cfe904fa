"""Calibration and verification see what serving sees."""

import cv2
import numpy as np
import pytest

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import ModelFileError
from forebay_server.service.cli.engine_frames import (
    PictureFlags,
    Sampling,
    describe_model,
    feeds_by_name,
    picture_for,
    read_feeds,
)
from forebay_server.service.pictures.picture_input import PictureInput, Values
from tests.support import models


def specs(shape, dtype="float32", *, has_batch_dimension=True, names=("x",)):
    inputs = tuple(TensorSpec(name, np.dtype(dtype), shape) for name in names)
    return EngineSpecs(inputs, (), 1, has_batch_dimension)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    frame = np.random.default_rng(1).integers(0, 256, (4, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "frames" / "0.png"), frame)
    return tmp_path / "frames", frame[..., ::-1]


def test_numbers_without_a_word_about_them_are_refused():
    with pytest.raises(ModelFileError, match="nothing says how pixels become those: write scale, mean and std into"):
        picture_for(specs((3, 8, 8)), None, PictureFlags(color="RGB"))


def test_flags_say_how_pixels_become_numbers():
    flags = PictureFlags("BGR", "1,2,3", "0.5")
    expected = PictureInput(4, 2, "BGR", values=Values("NCHW", "float32", (1, 2, 3), (2.0,), 1.0))
    assert picture_for(specs((3, 2, 4)), None, flags) == expected


def test_bytes_need_no_flags():
    assert picture_for(specs((2, 4, 3), "uint8"), None, PictureFlags()) == PictureInput(4, 2, "RGB")
    assert picture_for(specs((1, 2, 4, 3), "uint8", has_batch_dimension=False), None, PictureFlags()).width == 4


@pytest.mark.parametrize(("shape", "names"), [((2, 4, 3), ("x0", "x1")), ((10,), ("x0",)), ((2, 4, 4), ("x0",))])
def test_a_model_that_takes_no_pictures_is_refused_with_its_inputs(shape, names):
    with pytest.raises(ModelFileError, match=r"takes no pictures .* its inputs are x0"):
        picture_for(specs(shape, names=names), None, PictureFlags(scale="1"))


@pytest.mark.parametrize("flags", [PictureFlags("red"), PictureFlags(mean="1,2"), PictureFlags(scale="0")])
def test_a_wrong_flag_is_named(flags):
    with pytest.raises(ModelFileError, match=r"^(color|mean|scale) is '"):
        picture_for(specs((3, 8, 8)), None, PictureFlags(flags.color, flags.mean or "0", flags.scale or "1"))


def test_a_configuration_beside_the_file_says_how_frames_are_made(tmp_path, folder):
    path = models.save(models.conv_net(size=8), tmp_path / "best.onnx")
    keys = {"resize": "letterbox", "pad_value": "0", "scale": "1/255"}
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in keys.items()]
    (tmp_path / "best.pbtxt").write_text("\n".join(lines))
    shape = EngineSpecs(
        (TensorSpec("image", np.dtype(np.float32), (3, 8, 8)),), (TensorSpec("scores", np.dtype("f4"), (10,)),), 8
    )
    picture = picture_for(shape, describe_model(path, shape), PictureFlags())
    assert (picture.resize, picture.values.scale) == ("letterbox", 1 / 255)
    (feed,) = feeds_by_name(read_feeds(str(folder[0]), picture, shape, Sampling()), shape)
    whole = np.zeros((8, 8, 3))
    whole[2:6] = folder[1]
    assert np.array_equal(feed["image"], (whole / 255).transpose(2, 0, 1)[None].astype(np.float32))
