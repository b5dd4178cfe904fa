import numpy as np
import pytest

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.picture_completion import picture_of
from forebay_server.service.models.picture_parameters import PictureParameters
from forebay_server.service.pictures.picture_input import PictureInput, Values


def spec(shape, dtype="float32", name="images"):
    return TensorSpec(name, np.dtype(dtype), shape)


PLANES = spec((3, 480, 640))
SIZES = spec((2,), "int64", "orig_target_sizes")
YOLO = {"scale": 1 / 255}
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def picture(*inputs, has_batch=True, **given):
    return picture_of(EngineSpecs(inputs, (), 8, has_batch), PictureParameters(**given), "m/config.pbtxt")


def test_a_float_model_is_a_picture_as_its_parameters_say():
    found = picture(PLANES, resize="letterbox", pad_value=0, pad_at="bottom_right", color_order="BGR", **IMAGENET)
    values = Values("NCHW", "float32", IMAGENET["mean"], IMAGENET["std"], 1 / 255)
    assert found == PictureInput(640, 480, "BGR", "letterbox", 0, "bottom_right", values=values)


def test_defaults_are_those_of_the_page():
    assert picture(PLANES, **YOLO) == PictureInput(640, 480, "RGB", values=Values("NCHW", "float32", scale=1 / 255))


@pytest.mark.parametrize(
    ("given", "shape", "layout"),
    [
        ({}, (3, 480, 640), "NCHW"),
        ({}, (480, 640, 3), "NHWC"),
        ({}, (1, 480, 640), "NCHW"),
        ({}, (480, 640, 1), "NHWC"),
        ({"layout": "NHWC"}, (3, 5, 3), "NHWC"),
        ({"layout": "NCHW"}, (3, 5, 3), "NCHW"),
    ],
)
def test_the_layout_is_that_of_the_channels(given, shape, layout):
    found = picture(spec(shape, "float16"), **YOLO, **given)
    assert found.shape == shape
    assert (found.values.layout, found.values.dtype) == (layout, "float16")
    assert found.color_order == ("GRAY" if 1 in shape else "RGB")


def test_uint8_with_channels_first_becomes_a_picture_if_a_parameter_is_given():
    assert picture(spec((3, 480, 640), "uint8")) is None
    assert picture(spec((3, 480, 640), "uint8"), color_order="BGR").values == Values("NCHW")


def test_a_model_without_a_batch_may_have_a_first_dimension_of_one():
    assert picture(spec((1, 3, 480, 640)), has_batch=False, **YOLO).shape == (3, 480, 640)


def test_sizes_are_those_of_the_models_picture():
    found = picture(SIZES, PLANES, **YOLO)
    assert (found.input_index, found.constant_inputs) == (1, ((0, np.array([640, 480]).tobytes()),))


@pytest.mark.parametrize(
    ("given", "interpolation"),
    [
        ({"resize": "center_crop"}, "bilinear"),
        ({"resize": "stretch"}, "opencv"),
        ({}, "opencv"),
        ({"resize": "stretch", "interpolation": "bilinear"}, "bilinear"),
        ({"resize": "center_crop", "interpolation": "opencv"}, "opencv"),
    ],
)
def test_what_is_cut_is_resized_as_for_classifiers_unless_it_is_written(given, interpolation):
    assert picture(PLANES, **given, **YOLO).interpolation == interpolation


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ([PLANES], {"color_order": "RGB"}, "input 'images' is FP32: write the parameter 'scale', by which pixels of 0"),
        (
            [PLANES],
            {"color_order": "GRAY", **YOLO},
            "color_order is GRAY, but the model takes 3 channels: write RGB or",
        ),
        ([spec((1, 5, 5))], {"color_order": "RGB", **YOLO}, "takes 1 channel: write GRAY"),
        ([spec((1, 5, 5))], {**YOLO, "mean": (1, 2, 3)}, "mean has three numbers, but the model takes one channel"),
        ([spec((3, 5, 3))], YOLO, r"input 'images' \[3, 5, 3\] may be NHWC or NCHW: write the parameter 'layout'"),
        ([PLANES], {"layout": "NHWC", **YOLO}, "is not NHWC: write layout NCHW, or leave it out"),
        ([PLANES], {"image_size": (640, 640), **YOLO}, "image_size is 640x640, but the model takes 640x480"),
        ([PLANES], {"resize_to": 256, **YOLO}, "resize_to is for resize center_crop, not stretch"),
        (
            [PLANES],
            {"resize": "crop_pad", "interpolation": "bicubic", **YOLO},
            "not for resize crop_pad, which resizes no",
        ),
        ([PLANES], {"pad_at": "center", **YOLO}, "pad_at is for resize letterbox or crop_pad, not stretch"),
        ([spec((5, 5, 3), "uint8")], YOLO, "scale is for pictures of FP32 or FP16, but input 'images' is UINT8"),
        ([spec((3, -1, -1))], YOLO, r"fixed height and width; this one takes 'images' FP32 \[3, -1, -1\]"),
        ([spec((10,))], {"resize": "stretch"}, r"resize is for models that take one picture.*leave resize out"),
        ([PLANES, PLANES], YOLO, "scale is for models that take one picture"),
        ([PLANES, spec((1,), name="threshold")], YOLO, "scale is for models that take one picture"),
        ([PLANES, spec((3,), name="orig_target_sizes")], YOLO, "'orig_target_sizes' must be two numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(inputs, given, message):
    with pytest.raises(ConfigError, match=message) as error:
        picture(*inputs, **given)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("m/config.pbtxt: ")
