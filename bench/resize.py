"""A bilinear resize of 8-bit pictures: OpenCV's against the other libraries that could replace it (ADR 0190).

Milliseconds of CPU on one core, the largest difference from OpenCV in a value of 255, and the size of the library's
files. Each library gets its best of several calls, by turns with the others. One that is not installed is left out:
kornia-rs and Pillow are for this comparison only (`pip install kornia-rs pillow`), and ONNX Runtime's operator needs
the package onnx.

    python -m forebay_server.bench.resize
"""

import argparse
import importlib.metadata
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (height, width, 3)
Resize = Callable[[Picture], Picture]
SIZES = (((640, 480), (640, 640)), ((1920, 1080), (640, 640)), ((1280, 720), (320, 320)))
"""Width and height, before and after: of pictures that the bundled models and a common detector get."""
ROUNDS = 30
_FRACTION_BITS = 8  # of a weight: its product with a value fits into 16 bits
_WHOLE, _HALF = np.uint16(1 << _FRACTION_BITS), np.uint16(1 << _FRACTION_BITS - 1)


def opencv(_: tuple[int, int], after: tuple[int, int]) -> Resize:
    """Return OpenCV's, with one thread."""
    import cv2

    cv2.setNumThreads(1)
    return lambda picture: cv2.resize(picture, after, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def kornia(_: tuple[int, int], after: tuple[int, int]) -> Resize:
    """Return that of kornia-rs."""
    import kornia_rs  # type: ignore[import-not-found]  # of this comparison only

    width, height = after
    return lambda picture: np.asarray(kornia_rs.imgproc.resize(picture, (height, width), "bilinear", antialias=False))


def onnx_runtime(before: tuple[int, int], after: tuple[int, int]) -> Resize:
    """Return the operator Resize of ONNX Runtime, with one thread."""
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, before[1], before[0], 3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, after[1], after[0], 3])],
        [helper.make_tensor("sizes", TensorProto.INT64, [4], [1, after[1], after[0], 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda picture: session.run(None, {"x": picture[None]})[0][0]


def pillow(before: tuple[int, int], after: tuple[int, int]) -> Resize:
    """Return Pillow's affine map: its resize averages over the pixels in between, which is another function."""
    from PIL import Image

    affine = (before[0] / after[0], 0.0, 0.0, 0.0, before[1] / after[1], 0.0)
    method, filter_ = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return lambda picture: np.asarray(Image.fromarray(picture).transform(after, method, affine, filter_))


def numpy(before: tuple[int, int], after: tuple[int, int]) -> Resize:
    """Return two gathers and two weighted sums in integers, first of rows, then of columns."""
    rows, columns = _neighbours(before[1], after[1]), _neighbours(before[0], after[0])

    def resize(picture: Picture) -> Picture:
        for axis, (low, high, weight) in enumerate((rows, columns)):
            across = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            total = np.take(picture, low, axis) * (_WHOLE - across)
            total += np.take(picture, high, axis) * across
            total += _HALF
            picture = (total >> _FRACTION_BITS).astype(np.uint8)
        return picture

    return resize


def _neighbours(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16]]:
    """Return the lower and the upper neighbour of each place of one axis, and the upper one's weight."""
    at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.floor(at).astype(np.int64)
    weight = np.round((at - low) * int(_WHOLE)).astype(np.uint16)
    return low, np.minimum(low + 1, before - 1), weight


LIBRARIES: dict[str, tuple[str, Callable[[tuple[int, int], tuple[int, int]], Resize]]] = {
    "OpenCV, `INTER_LINEAR`, one thread": ("opencv-python-headless", opencv),
    "kornia-rs, `resize`": ("kornia-rs", kornia),
    "ONNX Runtime, `Resize`, one thread": ("onnxruntime", onnx_runtime),
    "Pillow, `transform` with an affine map": ("pillow", pillow),
    "numpy, two gathers in integers": ("numpy", numpy),
}
"""Name -> distribution, and how to make its function for a size before and one after."""


def measure(before: tuple[int, int], after: tuple[int, int], rounds: int) -> dict[str, tuple[float, int]]:
    """Return the milliseconds of CPU and the largest difference from OpenCV, by library that is installed."""
    picture = np.random.default_rng(1).integers(0, 256, (before[1], before[0], 3), dtype=np.uint8)
    functions: dict[str, Resize] = {}
    for name, (_, make) in LIBRARIES.items():
        try:
            functions[name] = make(before, after)
        except ImportError:
            continue
    answers: dict[str, Any] = {name: function(picture).astype(np.int16) for name, function in functions.items()}
    expected = answers["OpenCV, `INTER_LINEAR`, one thread"]
    best_ms = dict.fromkeys(functions, math.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            began_ns = time.process_time_ns()
            function(picture)
            best_ms[name] = min(best_ms[name], (time.process_time_ns() - began_ns) / 1e6)
    return {name: (best_ms[name], int(np.abs(answers[name] - expected).max())) for name in functions}


def _megabytes(distribution: str) -> float:
    """Return the size of a distribution's files."""
    paths = [Path(str(file.locate())) for file in importlib.metadata.files(distribution) or ()]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay_server.bench.resize", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"calls of each library (default: {ROUNDS})")
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a library's own threads would share the work
    measured = [measure(before, after, given.rounds) for before, after in SIZES]
    heads = [f"{before[0]}x{before[1]} to {after[0]}x{after[1]}" for before, after in SIZES]
    print(f"| | {' | '.join(heads)} | largest difference | MB |\n| --- | {'---: | ' * (len(heads) + 1)}---: |")
    for name, (distribution, _) in LIBRARIES.items():
        if name not in measured[0]:
            print(f"{distribution} is not installed")
            continue
        cells = " | ".join(f"{each[name][0]:.2f}" for each in measured)
        library, comma, function = name.partition(",")
        version = importlib.metadata.version(distribution)
        difference = max(each[name][1] for each in measured)
        print(f"| {library} {version}{comma}{function} | {cells} | {difference} | {_megabytes(distribution):.0f} |")


if __name__ == "__main__":
    main()
