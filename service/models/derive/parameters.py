"""Parameters that a configuration leaves out and the model's file holds. Pure.

They are written into the configuration as an operator would write them, so that reading, ModelConfig and
`forebay models describe` see one thing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forebay_server.engines.onnx_specs import NodeInfo
from forebay_server.service.models.derive.metadata import Hints
from forebay_server.service.models.parameters import OwnParameters

METADATA, LABELS_FILE = "the file's metadata", "labels.txt"
FLOATS = frozenset({"tensor(float)", "tensor(float16)"})
TRANSFORMER = "RTDETRDecoder"  # stretches pictures, where all other heads of this exporter are trained on letterboxes


@dataclass(frozen=True, slots=True)
class DerivedParameters:
    """See the module.

    Attributes:
        values: parameter -> value, as text.
        sources: parameter -> where it was found.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def derive_parameters(
    own: OwnParameters, hints: Hints, inputs: Sequence[NodeInfo], labels_file: tuple[str, ...] | None
) -> DerivedParameters:
    """Return the parameters that the configuration does not write.

    Args:
        own: as written.
        hints: of the file's metadata.
        inputs: as the file declares them.
        labels_file: lines of the file `labels.txt` beside the model; None if there is none.
    """
    if own.task == "tensors":
        return DerivedParameters()
    values: dict[str, str] = {}
    if hints.is_yolo and len(inputs) == 1 and _is_picture(inputs[0]):
        values = _of_yolo(own, hints, inputs[0])
    sources = dict.fromkeys(values, METADATA)
    if own.labels is None and labels_file is not None and (own.task or "task" in values):
        values["labels"], sources["labels"] = as_list(labels_file), LABELS_FILE
    written = own.written
    values = {key: value for key, value in values.items() if key not in written}
    return DerivedParameters(values, {key: sources[key] for key in values})


def as_list(names: Sequence[str]) -> str:
    """Return the value of `labels` for names that may hold commas. An empty one is its number."""
    return json.dumps([name.strip() or str(number) for number, name in enumerate(names)], ensure_ascii=False)


def _of_yolo(own: OwnParameters, hints: Hints, picture: NodeInfo) -> dict[str, str]:
    task = own.task or hints.task or "detection"
    values = {"task": task, "scale": "1/255", "color_order": "RGB" if _channels(picture) == 3 else "GRAY"}
    if task == "classification":
        values |= {"activation": "none", **_of_classifier(own, hints, picture)}
    elif hints.exporter_head == TRANSFORMER:
        values["head"] = "rt_detr"
    else:
        values["resize"] = "letterbox"
        if hints.is_end_to_end:
            values["head"] = "end_to_end"
    if hints.labels is not None:
        values["labels"] = as_list(hints.labels)
    if hints.keypoint_shape is not None and task == "pose":
        values["keypoint_shape"] = "x".join(map(str, hints.keypoint_shape))
    if hints.image_size is not None and not all(isinstance(side, int) for side in picture.shape[2:]):
        values["image_size"] = "x".join(map(str, hints.image_size))
    return values


def _of_classifier(own: OwnParameters, hints: Hints, picture: NodeInfo) -> dict[str, str]:
    """Return how frames get the size of the picture: the exporter's library cuts only for square ones."""
    sides = picture.shape[2:]
    if not all(isinstance(side, int) for side in sides):
        sides = own.picture.image_size or hints.image_size or ()
    if len(set(sides)) <= 1 or own.picture.resize_to is not None:  # that goes with a crop alone
        return {"resize": "center_crop"}
    # Pillow's resizing goes with a stretch alone: an operator who writes another `resize` gets its own default.
    is_stretched = own.picture.resize in {None, "stretch"}
    return {"resize": "stretch", "interpolation": "bilinear"} if is_stretched else {}


def _is_picture(node: NodeInfo) -> bool:
    return node.type in FLOATS and len(node.shape) == 4 and _channels(node) in {1, 3}


def _channels(node: NodeInfo) -> int | str | None:
    return node.shape[1]
