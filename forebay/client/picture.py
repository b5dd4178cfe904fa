"""One picture of any common form as a frame: its encoding and its payload. Pure, except that a path is read."""

from os import PathLike, fspath
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from forebay.client.encode import FrameData
from forebay.client.options import Encoding, Masks, OutputKind
from forebay.client.wrong_frame import file_kind, shape_hint, type_hint

PictureData = NDArray[np.uint8] | bytes | bytearray | memoryview | str | PathLike[str]


class PictureKeywords(TypedDict, total=False):
    """The arguments of `Client.infer` besides the picture, its model and times; as in `StreamKeywords`.

    Attributes:
        version: of the model; empty: the newest.
        priority: 1 is the most urgent; 0: the model's default.
        outputs: "tensors", "detections", "classes"; empty: the model's typed result, else tensors.
        tensor_names: with "tensors": names of the outputs to return.
        score_threshold: 0..1; default: the model's.
        iou_threshold: 0..1; default: the model's.
        max_results: maximum number of detections or classes in a result; 0: the model's.
        masks: "polygons" or "run_lengths": the form of the masks of a segmentation model; default: no masks.
        headers: metadata of the call.
    """

    version: str
    priority: int
    outputs: tuple[OutputKind, ...]
    tensor_names: tuple[str, ...]
    score_threshold: float | None
    iou_threshold: float | None
    max_results: int
    masks: Masks | None
    headers: dict[str, str]


def as_frame(picture: PictureData, encoding: Encoding | None) -> tuple[Encoding, FrameData]:
    """Return a picture's encoding and the frame to send. Blocks on the disk for a path.

    Args:
        picture: an array of uint8, shape (height, width, 3) or (height, width); the bytes of a JPEG or PNG file; or the
            path of one.
        encoding: the caller's word for an array of three channels; None: bgr8.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: not a picture, with the reason.
    """
    if isinstance(picture, np.ndarray):
        return _of_array(picture, encoding)
    if isinstance(picture, str | PathLike):
        data: bytes | bytearray | memoryview = Path(picture).read_bytes()
        name = f"{fspath(picture)} is"
    elif isinstance(picture, bytes | bytearray | memoryview):
        data, name = picture, "the bytes are"
    else:
        hint = "; cv2.imread gives None if it cannot read a file" if picture is None else ""
        raise TypeError(
            "a picture is a numpy array, the bytes of a JPEG or PNG file, or a path, not "
            f"{type(picture).__name__}{hint}"
        )
    found = file_kind(data)
    if found is None:
        raise ValueError(f"{name} no JPEG or PNG file; decode it, and give the pixels as an array")
    if encoding not in {None, found}:
        raise ValueError(f"{name} a {found} file, not {encoding}; leave encoding out")
    return found, data


def _of_array(picture: NDArray[np.uint8], encoding: Encoding | None) -> tuple[Encoding, FrameData]:
    shape = picture.shape
    if picture.dtype != np.uint8:
        hint = type_hint(picture.dtype, "picture")
        raise ValueError(f"the picture's values are {picture.dtype}; give uint8, 0 to 255: {hint}")
    if 0 in shape or len(shape) not in {2, 3} or (len(shape) == 3 and shape[2] != 3):
        hint = shape_hint(shape, "picture")
        raise ValueError(f"the picture has the shape {shape}, not (height, width, 3) or (height, width){hint}")
    allowed: tuple[Encoding, ...] = ("mono8",) if len(shape) == 2 else ("bgr8", "rgb8")
    chosen = encoding or allowed[0]
    if chosen not in allowed:
        raise ValueError(f"an array of shape {shape} is {' or '.join(allowed)}, not {chosen}")
    return chosen, picture
