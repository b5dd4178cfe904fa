"""The lines that name the parameters with which a model would take pictures, where its file says too little. Pure."""

import numpy as np

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.observed_shapes import has_open_rows

TASKS = "detection, segmentation, pose, oriented or classification"
USUAL_ROWS = 300  # that detectors give at most, as torchvision's and Ultralytics' do by default
FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def question_of(specs: EngineSpecs, filename: str) -> str:
    """Return the line for a model that takes no pictures as it is; empty if none of its inputs can be a picture."""
    pictures = [spec for spec in specs.inputs if spec.dtype in FLOATS and _is_like_picture(spec, specs)]
    if len(pictures) != 1:
        return ""
    (picture,) = pictures
    sides = "" if picture.is_fixed else "image_size (such as 640x640), "
    return (
        f"input {picture.name!r} looks like a picture: write the parameters {sides}scale (1/255 for a model that "
        f"takes 0 to 1, 1 for 0 to 255) and, for typed results, task ({TASKS}) in {filename}"
    )


def rows_question_of(specs: EngineSpecs, filename: str, observed_rows: int) -> str:
    """Return the line for a model of pictures whose outputs may have a row for each object; empty for any other.

    Args:
        specs: of the model.
        filename: of its configuration.
        observed_rows: as of `ModelDescription`.
    """
    if not (has_open_rows(specs) and all(spec.is_fixed for spec in specs.inputs)):
        return ""
    names = ", ".join(repr(spec.name) for spec in specs.outputs if not spec.is_fixed)
    number = f"{USUAL_ROWS}"
    if observed_rows > USUAL_ROWS:  # fewer say little: a trial run is on a picture without objects
        number = f"{observed_rows} (as many as a trial run gave)"
    return (
        f"outputs {names} have as many rows as objects were found, and streams need a fixed number: write the "
        f"parameter output_rows, such as {number}, in {filename}"
    )


def _is_like_picture(spec: TensorSpec, specs: EngineSpecs) -> bool:
    shape = spec.shape if specs.has_batch_dimension else spec.shape[1:]
    return len(shape) == 3 and (shape[0] in {1, 3} or shape[2] in {1, 3})
