"""The CPU time of a picture: a frame decoded into the model's picture, beside OpenCV's own way, on one thread.

OpenCV's way for numbers is its letterbox (`resize`, `copyMakeBorder`) and `dnn.blobFromImage`; both sides start from
the same 1280x720 pixels and end with the same 640x640 numbers, which is checked. Its way for bytes is `resize` into a
buffer that exists. Both sides run in turn in one process, with the allocator set as in the server.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay.tuning import tune_process
from forebay.wire import frames_pb2 as pb
from forebay_server.bench.pairs import Pairs
from forebay_server.bench.rows import Row, Spread
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.picture_input import PictureInput, Values

SIZE = (1280, 720)
SIDE, DETECTOR_SIDE = 640, 416
PAD = 114
ROUNDS, QUICK_ROUNDS = 300, 60
MOST_PIXELS = 4_000_000
ROUNDING = 1e-3  # of values 0..1: FP16 has 11 bits


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure."""
    tune_process()
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    frame = cv2.resize(np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8), SIZE)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(frame, np.uint8)
    for dtype, bar in (("float32", 1.3), ("float16", 1.3)):
        picture = PictureInput(SIDE, SIDE, "RGB", "letterbox", PAD, values=Values("NCHW", dtype, scale=1 / 255))  # type: ignore[arg-type]
        target = np.empty(picture.shape, picture.dtype)
        ours = _decoding(target, pixels, picture)
        theirs = _blob(pixels, dtype)
        ours()
        if not np.allclose(target, theirs()[0], atol=ROUNDING):
            raise RuntimeError("the two ways do not give the same numbers")
        name = f"1280x720 to 640x640 {dtype} planes, letterboxed"
        yield from _rows(name, "OpenCV's blobFromImage", theirs, ours, rounds, bar)
    picture = PictureInput(DETECTOR_SIDE, DETECTOR_SIDE, "BGR")
    target, resized = np.empty(picture.shape, np.uint8), np.empty(picture.shape, np.uint8)
    yield from _rows(
        "1280x720 to 416x416 bytes, stretched",
        "OpenCV's resize",
        lambda: cv2.resize(pixels, (DETECTOR_SIDE, DETECTOR_SIDE), dst=resized, interpolation=cv2.INTER_LINEAR),
        _decoding(target, pixels, picture),
        rounds,
        None,
    )


def _decoding(target: NDArray[Any], pixels: NDArray[np.uint8], picture: PictureInput) -> Callable[[], object]:
    payload = memoryview(pixels.tobytes())
    return lambda: decode_into(target, payload, pb.ENCODING_BGR8, SIZE, picture, MOST_PIXELS)


def _blob(pixels: NDArray[np.uint8], dtype: str) -> Callable[[], Any]:
    height = round(SIZE[1] * SIDE / SIZE[0])
    above = (SIDE - height) // 2

    def make() -> Any:  # noqa: ANN401 - OpenCV's array
        resized = cv2.resize(pixels, (SIDE, height), interpolation=cv2.INTER_LINEAR)
        whole = cv2.copyMakeBorder(
            resized, above, SIDE - height - above, 0, 0, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD)
        )
        blob = cv2.dnn.blobFromImage(whole, 1 / 255, swapRB=True)
        return blob if dtype == "float32" else blob.astype(dtype)

    return make


def _rows(
    name: str,
    other: str,
    theirs: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    bar: float | None,
) -> Iterator[Row]:
    pairs = Pairs()
    for _ in range(rounds):
        pairs.first.append(_cpu_ms(theirs))
        pairs.second.append(_cpu_ms(ours))
    yield Row(f"{name}: CPU", _spread(pairs.second), "ms", note=f"{other}: {_spread(pairs.first)}")
    yield Row(f"{name}: CPU over {other}", _spread(pairs.ratios), budget=bar, bar=bar)


def _cpu_ms(do: Callable[[], object]) -> float:
    started_ns = time.thread_time_ns()
    do()
    return (time.thread_time_ns() - started_ns) / 1e6


def _spread(values: list[float]) -> Spread:
    """The median, and the tenths at both ends: a few runs meet another process."""
    low, median, high = np.percentile(values, (10, 50, 90)).tolist()
    return Spread(median, low, high)
