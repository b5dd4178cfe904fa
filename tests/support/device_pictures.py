"""Pictures for devices: forms, planes, their rows by the CPU's way, and a decoder for the simulated device."""

import numpy as np
import simplejpeg

from forebay.wire import frames_pb2 as pb
from forebay_server.engines.device_simulated import FileDecoding
from forebay_server.engines.pictures import JpegFile, Nv12Planes
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.frontend.frames.decode.placing import place
from forebay_server.service.frontend.frames.video.codec import Picture
from forebay_server.service.frontend.frames.video.planes import place_picture
from forebay_server.service.pictures.picture_input import PictureInput, Values
from tests.support.jpegs import noisy_picture

MOST = 1 << 24
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}

FORMS = {
    "stretched bytes": PictureInput(80, 48, "RGB"),
    "letterbox of a detector": PictureInput(
        96, 96, "RGB", "letterbox", values=Values("NCHW", "float16", scale=1 / 255)
    ),
    "a classifier's cut": PictureInput(
        56,
        56,
        "RGB",
        "center_crop",
        resize_to=64,
        interpolation="bilinear",
        values=Values("NCHW", "float32", **NORMALISED),
    ),
    "a bicubic cut": PictureInput(
        48, 48, "BGR", "center_crop", interpolation="bicubic", values=Values("NHWC", "float32", scale=1.0)
    ),
    "cut or padded": PictureInput(70, 90, "BGR", "crop_pad", pad_at="bottom_right"),
    "grey": PictureInput(40, 40, "GRAY", "letterbox", pad_value=0, values=Values("NCHW", "float16", scale=1.0)),
}


def pixels_of(width, height, seed=0):
    """A BGR picture with edges and noise."""
    picture = noisy_picture(width, height)
    return np.roll(picture, 7 * seed, axis=1)


def in_bytes(array, picture):
    """A model's row in pixel values, so that differences are comparable."""
    values = picture.values
    std = np.broadcast_to(np.array(values.std), picture.channels)
    std = std[:, None, None] if values.layout == "NCHW" else std
    return array.astype(np.float64) * std / values.scale


def differences(found, expected, picture):
    """(mean, largest) difference in pixel values of 0 to 255."""
    found, expected = (in_bytes(each.reshape(picture.shape), picture) for each in (found, expected))
    difference = np.abs(found - expected)
    return float(difference.mean()), float(difference.max())


def row_of_pixels(pixels, picture):
    """The model's row of a BGR picture, by the CPU's way."""
    row = np.zeros(picture.shape, picture.dtype)
    place(row, pixels, "BGR", (pixels.shape[1], pixels.shape[0]), picture, MOST)
    return row


def row_of_file(file, picture):
    """The model's row of a JPEG file, by the CPU's way."""
    row = np.zeros(picture.shape, picture.dtype)
    decode_into(row, memoryview(file), pb.ENCODING_JPEG, (0, 0), picture, MOST)
    return row


def planes_of(width, height, seed=0, pitch=None):
    """(luma, chroma), each with the pitch between lines, of bytes that are smooth."""
    pitch = pitch or width + width % 2 + 16
    luma = np.full((height, pitch), 200, np.uint8)
    luma[:, :width] = pixels_of(width, height, seed)[..., 0]
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    chroma = np.full((half_height, pitch), 13, np.uint8)
    chroma[:, 0 : 2 * half_width : 2] = pixels_of(half_width, half_height, seed)[..., 1]
    chroma[:, 1 : 2 * half_width : 2] = pixels_of(half_width, half_height, seed)[..., 2]
    return luma, chroma


def row_of_planes(luma, chroma, size, picture, *, matrix, is_full_range):
    """The model's row of NV12 planes, by the CPU's way; `matrix` is 1 for BT.709 and 6 for BT.601."""
    width = size[0]
    half_width = (width + 1) // 2
    found = Picture(
        1, "nv12", size, matrix, is_full_range, (luma[:, :width], chroma[:, : 2 * half_width]), is_damaged=False
    )
    row = np.zeros(picture.shape, picture.dtype)
    place_picture(row, found, picture, MOST)
    return row


def put_planes(rig, stream, size, seed=0, *, shares=(0.2126, 0.0722), is_full_range=False, ready=None):
    """Planes in device memory, uploaded on `stream`; (planes, luma, chroma)."""
    luma, chroma = planes_of(*size, seed)
    host, buffer = rig.host(luma.nbytes + chroma.nbytes), rig.on_device(luma.nbytes + chroma.nbytes)
    host.write_view()[:] = np.concatenate([luma.reshape(-1), chroma.reshape(-1)])
    stream.copy_h2d(buffer, host, host.nbytes)
    if ready is not None:
        stream.record(ready)
    planes = Nv12Planes(buffer, 0, luma.nbytes, luma.shape[1], size, shares, is_full_range, ready)
    return planes, luma, chroma


def put_file(rig, file, size, offset=0):
    """A file in host memory that the device reads."""
    host = rig.host(offset + len(file))
    host.write_view()[offset:] = np.frombuffer(file, np.uint8)
    return JpegFile(host, offset, len(file), size)


def decode(file):
    """The pixels of a file, as libjpeg has them; None where it has a warning."""
    try:
        return simplejpeg.decode_jpeg(file, "RGB")
    except ValueError:
        return None


SIMULATED_FILES = FileDecoding(decode)
