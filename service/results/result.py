"""The entry point: converts the outputs of one frame to the model's typed result. Pure; runs in the worker pool."""

from typing import assert_never

from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.classes import Classification, decode_classes
from forebay_server.service.results.detection import Detection
from forebay_server.service.results.detections import decode_detections
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.task import ClassificationTask, DetectionTask, Task

Result = tuple[Detection, ...] | tuple[Classification, ...]


def make_result(
    task: Task,
    outputs: OutputArrays,
    options: ResultOptions,
    frame_size: tuple[int, int],
    picture: PictureInput | None = None,
) -> Result:
    """Return the typed result of one frame.

    Args:
        task: the meaning of the model's outputs.
        outputs: all outputs of the model for this frame, in the model's order; borrowed for the call.
        options: the stream's thresholds.
        frame_size: width and height in pixels of the frame as the client sent it; zeros for tensors without a picture.
        picture: the model's picture, into which frames are brought; None for a model that takes no pictures.

    Raises:
        CorruptResultError: the outputs are inconsistent.
    """
    match task:
        case DetectionTask():
            return decode_detections(outputs, task, options, frame_size, picture)
        case ClassificationTask():
            return decode_classes(outputs, task, options)
        case _:
            assert_never(task)
