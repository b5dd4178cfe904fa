"""Names the fault of a frame that cannot be sent, and the remedy. Pure; only called after a check failed."""

from os import PathLike, fspath
from typing import Any

import numpy as np

from forebay.client.options import Encoding

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_FILES = ("jpeg", "png")


def shape_hint(shape: tuple[int, ...], name: str) -> str:
    """Return how an array of this shape becomes one of (height, width, 3), after a colon; empty if not clear."""
    if len(shape) == 4 and shape[0] == 1:
        return f": write {name}[0]"
    if len(shape) == 4:
        return ": give one picture at a time"
    if len(shape) == 3 and shape[2] == 4:
        return f": drop the fourth channel, {name}[:, :, :3]"
    if len(shape) == 3 and shape[0] == 3:
        return f": put the channels last, {name}.transpose(1, 2, 0)"
    return ""


def type_hint(values: np.dtype[Any], name: str) -> str:
    """Return how an array of these values becomes one of uint8."""
    if values.kind == "f":
        return f"({name} * 255).astype(np.uint8) if its values are 0 to 1, else {name}.astype(np.uint8)"
    if values == np.uint16:
        return f"({name} >> 8).astype(np.uint8), or fewer bits if the camera has fewer"
    return f"{name}.astype(np.uint8)"


def file_kind(data: bytes | bytearray | memoryview) -> Encoding | None:
    """Return the encoding of a file by its first bytes."""
    head = bytes(memoryview(data).cast("B")[: len(PNG)])
    if head.startswith(JPEG):
        return "jpeg"
    return "png" if head == PNG else None


def fault_of_type(encoding: Encoding, frame: object) -> TypeError:
    """Return the error for a frame of a type that no encoding takes."""
    wanted = _wanted(encoding)
    if frame is None:
        return TypeError(
            "the frame is None: cv2.imread and VideoCapture.read give None if a file or a camera gave no picture"
        )
    if isinstance(frame, str | PathLike):
        how = f'open({fspath(frame)!r}, "rb").read()' if encoding in _FILES else f"cv2.imread({fspath(frame)!r})"
        return TypeError(f"the frame is a path, not {wanted}: write {how}, or client.infer for a single file")
    if isinstance(frame, tuple) and len(frame) == 2 and isinstance(frame[1], np.ndarray):
        return TypeError("the frame is a pair: write `_, frame = capture.read()` and send the frame")
    package, name = type(frame).__module__.partition(".")[0], type(frame).__name__
    hints = {
        "PIL": ': write np.asarray(frame.convert("RGB")), and open the stream with encoding="rgb8"',
        "torch": ": write frame.cpu().numpy()",
        "cv2": ": write frame.get()",
    }
    return TypeError(f"the frame is {wanted}, not {name}{hints.get(package, '')}")


def fault_of_shape(encoding: Encoding, layout: object, shape: tuple[int, ...]) -> ValueError:
    """Return the error for an array whose shape is not that of the encoding."""
    if len(shape) == 1 or (len(shape) == 2 and 1 in shape):
        hint = ': for a file\'s bytes, open the stream with encoding="jpeg" and write frame.tobytes()'
    elif len(shape) == 2 and encoding in {"bgr8", "rgb8"}:
        hint = ': for a grey picture, open the stream with encoding="mono8"'
    elif encoding == "mono8" and len(shape) == 3 and shape[2] == 3:
        hint = ': for a coloured picture, open the stream with encoding="bgr8"'
    elif encoding == "mono8" and len(shape) == 3 and shape[2] == 1:
        hint = ": write frame[:, :, 0]"
    else:
        hint = shape_hint(shape, "frame")
    return ValueError(f"frames of {encoding} have the shape {layout}, not {shape}{hint}")


def fault_of_values(encoding: Encoding, frame: "np.ndarray[Any, Any]") -> ValueError:
    """Return the error for an array of pixels that are not uint8."""
    return ValueError(f"{encoding} frames are uint8, not {frame.dtype}: write {type_hint(frame.dtype, 'frame')}")


def fault_of_array(encoding: Encoding, frame: "np.ndarray[Any, Any]") -> TypeError:
    """Return the error for an array where a stream takes the bytes of a file or an access unit."""
    if frame.dtype == np.uint8 and frame.ndim == 2 and 1 in frame.shape:
        hint = "write frame.tobytes()"
    elif encoding in _FILES:
        hint = f'write cv2.imencode(".{encoding}", frame)[1], or open the stream with encoding="bgr8"'
    else:
        hint = 'encode it first, or open the stream with encoding="bgr8"'
    return TypeError(f"the frame is {_wanted(encoding)}, not an array of shape {frame.shape}: {hint}")


def fault_of_file(encoding: Encoding, frame: bytes | bytearray | memoryview) -> ValueError | None:
    """Return the error if bytes that should be pixels are a file; None if they are not."""
    kind = file_kind(frame)
    if kind is None:
        return None
    return ValueError(
        f'the frame is a {kind.upper()} file, and the stream was opened for {encoding}: open it with encoding="{kind}"'
    )


def _wanted(encoding: Encoding) -> str:
    if encoding in _FILES:
        return f"the bytes of a {encoding.upper()} file"
    if encoding in {"h264", "h265"}:
        return "the bytes of an access unit in Annex B form"
    if encoding == "tensor":
        return "a numpy array, one array for each input of the model, or bytes"
    return "a numpy array of pixels, or their bytes"
