"""Pictures as files, good and lying, and a model that takes them."""

import struct
import zlib

import cv2
import numpy as np

SIDE = 16


def pictures(root):
    """A model that takes pictures of 16 x 16 and gives them back."""
    (root / "camera" / "1").mkdir(parents=True)
    (root / "camera" / "config.pbtxt").write_text(
        f"""backend: "simulated" max_batch_size: 4
        input {{ name: "input" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {SIDE}, {SIDE}, 3 ] }}
        parameters {{ key: "input_shape" value {{ string_value: "{SIDE},{SIDE},3" }} }}
        parameters {{ key: "output" value {{ string_value: "copy" }} }}"""
    )
    return root


def jpeg(width=SIDE, height=SIDE):
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def png(width=SIDE, height=SIDE):
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg_that_says(width, height):
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png_that_says(width, height):
    data = bytearray(png())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)
