"""Pictures to model inputs: layout, order of channels, normalisation."""

import numpy as np
import pytest

from forebay_server.engines.build.feeds import Normalisation, feed_of, picture_input
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import ModelFileError

PICTURE = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


def specs(shape, dtype=np.uint8, *, has_batch_dimension=True, inputs=1):
    spec = tuple(TensorSpec(f"x{index}", np.dtype(dtype), shape) for index in range(inputs))
    return EngineSpecs(spec, spec, 1, has_batch_dimension)


def test_bytes_channels_last_are_the_picture_itself():
    target = picture_input(specs((2, 4, 3)))
    assert (target.layout, target.width, target.height) == ("NHWC", 4, 2)
    np.testing.assert_array_equal(feed_of(PICTURE, target, Normalisation(mean=(9, 9, 9))), PICTURE[None])


def test_floats_channels_first_are_normalised_in_the_models_order():
    target = picture_input(specs((3, 2, 4), np.float32))
    assert (target.layout, target.width, target.height) == ("NCHW", 4, 2)
    feed = feed_of(PICTURE, target, Normalisation("RGB", (1, 2, 3), (10, 20, 30)))
    assert feed.shape == (1, 3, 2, 4)
    assert feed.dtype == np.float32
    pixel = PICTURE[1, 2, ::-1].astype(np.float32)
    expected = (pixel - [1, 2, 3]) * [10, 20, 30]
    np.testing.assert_allclose(feed[0, :, 1, 2], expected)


def test_a_model_without_a_batch_dimension_takes_pictures_too():
    assert picture_input(specs((1, 2, 4, 3), has_batch_dimension=False)).width == 4


@pytest.mark.parametrize(("shape", "inputs"), [((2, 4, 3), 2), ((10,), 1), ((2, 4, 4), 1)])
def test_a_model_that_takes_no_pictures_is_refused_with_its_inputs(shape, inputs):
    with pytest.raises(ModelFileError, match="x0"):
        picture_input(specs(shape, inputs=inputs))
