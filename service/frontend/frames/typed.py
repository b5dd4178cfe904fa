"""Typed results on the wire: detections and classes to messages. Pure.

A detection with a box alone takes the event loop 4 µs, so it is put into its Result there. Keypoints and masks hold up
to hundreds of thousands of numbers, 15 to 30 ns each: the worker that made them also encodes them (`encode_large`), and
the event loop appends the bytes, because two encoded parts of one message, one after the other, are the whole message.
"""

from forebay.wire import frames_pb2 as pb
from forebay_server.service.results.classes import Classification
from forebay_server.service.results.detection import Box, Detection, Mask
from forebay_server.service.results.result import Result

_RESULT_TAG = bytes([pb.ServerMessage.RESULT_FIELD_NUMBER << 3 | 2])


def add_typed(result: pb.Result, items: Result) -> None:
    """Put detections or classes into a Result."""
    for item in items:
        if isinstance(item, Detection):
            _add_detection(result, item)
        else:
            _add_class(result, item)


def encode_large(items: Result) -> bytes | None:
    """Return detections as a part of an encoded Result if they have keypoints or masks, else None. Thread: a worker."""
    if not any(isinstance(item, Detection) and (item.keypoints or item.mask is not None) for item in items):
        return None
    part = pb.Result()
    add_typed(part, items)
    return part.SerializeToString()


def encode_tracked(items: Result, track_state: bytes) -> bytes:
    """Return detections with track ids, and the state of the tracks if not empty, as `encode_large` does."""
    part = pb.Result(track_state=track_state)
    add_typed(part, items)
    return part.SerializeToString()


def message_of_parts(result: pb.Result, part: bytes) -> bytes:
    """Return the encoded ServerMessage of a Result of which another part is encoded already."""
    head = result.SerializeToString()
    return b"".join((_RESULT_TAG, _varint(len(head) + len(part)), head, part))


def _add_detection(result: pb.Result, item: Detection) -> None:
    found = result.detections.add(
        label=item.label,
        class_id=item.class_id,
        score=item.score,
        box=_box(item.box),
        box_pixels=_box(item.box_pixels),
        track_id=item.track_id,
    )
    for x, y, score in item.keypoints:
        found.keypoints.add(x=x, y=y, score=score)
    if item.rotated_box is not None:
        found.rotated_box.CopyFrom(pb.RotatedBox(**item.rotated_box._asdict()))
    if item.mask is not None:
        _fill_mask(found.mask, item.mask)


def _box(box: Box) -> pb.Box:
    x_min, y_min, x_max, y_max = box
    return pb.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _add_class(result: pb.Result, item: Classification) -> None:
    result.classes.add(label=item.label, class_id=item.class_id, score=item.score)


def _fill_mask(message: pb.Mask, mask: Mask) -> None:
    message.SetInParent()
    for points in mask.polygons:
        message.polygons.add(points=points)
    if mask.run_lengths is not None:
        width, height, counts = mask.run_lengths
        message.run_lengths.CopyFrom(pb.RunLengths(width=width, height=height, counts=counts))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
