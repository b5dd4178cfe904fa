"""The one entry: outputs of one frame to the typed result that its model has. Pure; runs in the worker pool."""

from typing import assert_never

from forebay_server.service.models.description import ClassificationTask, DetectionTask, Task
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.classes import Classification, decode_classes
from forebay_server.service.results.detections import Detection, decode_detections
from forebay_server.service.results.options import ResultOptions

Result = tuple[Detection, ...] | tuple[Classification, ...]


def make_result(task: Task, outputs: OutputArrays, options: ResultOptions, frame_size: tuple[int, int]) -> Result:
    """Return the typed result of one frame.

    Args:
        task: what the model's outputs mean.
        outputs: the model's outputs for this frame, all of them, in the model's order; borrowed for the call.
        options: the stream's thresholds.
        frame_size: width and height in pixels of the frame as it was sent.

    Raises:
        CorruptResultError: the outputs cannot be right.
    """
    match task:
        case DetectionTask():
            return decode_detections(outputs, task, options, *frame_size)
        case ClassificationTask():
            return decode_classes(outputs, task, options)
        case _:
            assert_never(task)
