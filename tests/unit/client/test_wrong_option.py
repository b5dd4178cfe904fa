"""Arguments of a client and of a stream that are wrong are refused by their name, with the remedy."""

import numpy as np
import pytest

import forebay
from forebay.client.wrong_option import stream_options

GOOD = {"model": "m"}


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"model": None}, TypeError, r'model is missing: stream\("door", model="detector"\); client.models'),
        ({"model": 3}, TypeError, 'model is a text, such as "3", not int'),
        ({"version": 3}, TypeError, 'version is a text, such as "3", not int'),
        ({"encodng": "jpeg"}, TypeError, "no argument 'encodng': did you mean encoding?"),
        ({"threshold": 0.5}, TypeError, r"'threshold': did you mean score_threshold or iou_threshold\?"),
        ({"timeout": 1}, TypeError, r"no argument .timeout.: receive, send, infer and close take .*timeout_s=SECONDS"),
        ({"x": 1}, TypeError, r"no argument 'x': help\(forebay.client.keywords.StreamKeywords\)"),
        ({"width": "640"}, TypeError, "width is a whole number, not '640'"),
        ({"width": 640.5}, TypeError, "width is a whole number, not 640.5"),
        ({"priority": -1}, ValueError, "priority must be 0 to 4294967295, not -1"),
        ({"budget_ms": "100"}, TypeError, "budget_ms is a number, not '100'"),
        ({"budget_ms": -1}, ValueError, "budget_ms must be 0"),
        ({"budget_ms": float("nan")}, ValueError, "budget_ms must be 0"),
        ({"score_threshold": 50}, ValueError, "score_threshold must be 0 to 1, not 50"),
        ({"outputs": "detections"}, TypeError, r'outputs is a list: write outputs=\["detections"\]'),
        ({"headers": [("a", "b")]}, TypeError, "headers is a dict"),
        ({"encoding": "jpg"}, ValueError, "encoding must be one of tensor, rgb8"),
    ],
)
def test_a_wrong_argument_is_named(keywords, error, words):
    with pytest.raises(error, match=words):
        stream_options("door", {**GOOD, **keywords})


@pytest.mark.parametrize("camera", [None, 0, b"door"])
def test_a_camera_is_a_text(camera):
    with pytest.raises(TypeError, match="camera is a text, the name of the stream"):
        stream_options(camera, GOOD)


def test_numbers_of_numpy_are_numbers():
    options = stream_options("door", {**GOOD, "width": np.int64(4), "height": np.uint8(2), "budget_ms": np.float32(5)})
    assert (options.width, options.height, options.budget_ms) == (4, 2, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": 8001}, 'the address is a text, such as "127.0.0.1:8001", .* not 8001'),
        ({"address": ["a:1"]}, "several with commas"),
        ({"tls": "ca.pem"}, r'tls is forebay.Tls\(ca="ca.pem"\)'),
        ({"tls": True}, "None for plain text"),
        ({"reconnection": 5}, r"reconnection is forebay.Reconnection"),
    ],
)
def test_a_client_refuses_what_it_cannot_use(arguments, words):
    with pytest.raises(TypeError, match=words):
        forebay.Client(**arguments)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://localhost:8001", "give localhost:8001, without http://"),
        ("localhost", "such as localhost:8001"),
        ("localhost:99999", "give a port from 1 to 65535"),
    ],
)
def test_an_address_that_is_none_says_what_to_give(address, words):
    with pytest.raises(ValueError, match=words):
        forebay.Client(address)
