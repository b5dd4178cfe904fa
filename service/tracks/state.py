"""Writes the tracks of a stream as bytes, and reads them back from a client that may send anything.

The format is little-endian and has a version: a header, then one record a track. A checksum finds damage. There is no
key and no signature: the state decides about nothing but the ids and boxes of the stream that sent it, and every field
is checked, so a client that forges one deceives only itself (ADR 0201).
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.tracks.detections import LARGEST_CLASS
from forebay_server.service.tracks.elapsed import LONGEST_USUAL_NS
from forebay_server.service.tracks.motion import SMALLEST, Motion
from forebay_server.service.tracks.settings import LONGEST_KEEP_S, MAX_TRACKS
from forebay_server.service.tracks.table import FARTHEST, NS_PER_S, Table

MAGIC, VERSION = b"FBTR", 1
HEADER = struct.Struct("<4sBBHqqII")
"""Magic, version, whether there is a capture time, tracks, capture time, usual interval, last id, CRC-32.

The checksum is that of header and records with 0 in its own place."""
RECORD = np.dtype(
    [
        ("id", "<u4"),
        ("class", "<i4"),
        ("unseen_ns", "<i8"),
        ("position", "<f4", 4),
        ("velocity", "<f4", 4),
        ("variance", "<f4", (2, 3)),
    ]
)
MAX_BYTES = HEADER.size + MAX_TRACKS * RECORD.itemsize
FASTEST, LARGEST_VARIANCE = 1e12, 1e25
"""Limits of velocity and variances, far above those of any track of the tracker and far below overflow in float32."""
ROUNDING = 1.01
"""Factor by which rounding may lift the square of a covariance over the product of its variances."""


class TrackStateError(ValueError):
    """The bytes are not the state of a tracker. The message is public."""


@dataclass(slots=True)
class State:
    """Everything that a tracker remembers.

    Attributes:
        last_ns: capture time of the last update; None before the first.
        usual_ns: interval between the last two captures whose order was right.
        last_id: the largest id that was given.
        table: the tracks.
    """

    last_ns: int | None
    usual_ns: int
    last_id: int
    table: Table


def write_state(state: State) -> bytes:
    """Return a state as bytes, at most `MAX_BYTES`."""
    table = state.table
    records = np.empty(len(table), RECORD)
    records["id"], records["class"], records["unseen_ns"] = table.ids, table.classes, table.unseen_ns
    records["position"], records["velocity"], records["variance"] = table.motion
    has_time = state.last_ns is not None
    fields = (MAGIC, VERSION, has_time, len(table), state.last_ns or 0, state.usual_ns, state.last_id)
    body = records.tobytes()
    return HEADER.pack(*fields, zlib.crc32(HEADER.pack(*fields, 0) + body)) + body


def read_state(data: bytes) -> State:
    """Return the state that was written; every value is within the range that `write_state` can give.

    Raises:
        TrackStateError: bytes of another format, damaged, or with a value out of its range.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise TrackStateError("the track state is not one that this service wrote: send it as it was received")
    *fields, checksum = HEADER.unpack_from(data)
    _, version, has_time, count, last_ns, usual_ns, last_id = fields
    if version != VERSION:
        raise TrackStateError(f"the track state has version {version}, and this service reads {VERSION}: begin anew")
    body = data[HEADER.size :]
    if count > MAX_TRACKS or len(body) != count * RECORD.itemsize:
        raise TrackStateError(f"the track state has {len(data)} bytes, which do not fit its {count} tracks")
    if checksum != zlib.crc32(HEADER.pack(*fields, 0) + body):
        raise TrackStateError("the track state is damaged, its checksum differs: send it as it was received")
    records = np.frombuffer(body, RECORD)
    is_in_order = has_time <= 1 and (has_time or not (count or last_ns or usual_ns or last_id))
    if not is_in_order or not 0 <= usual_ns <= LONGEST_USUAL_NS or not _are_valid(records, last_id):
        raise TrackStateError("the track state holds values that no tracker has: send it as it was received")
    return State(last_ns if has_time else None, usual_ns, last_id, _table(records))


def _are_valid(records: NDArray[np.void], last_id: int) -> bool:
    ids, position, variance = records["id"], records["position"], records["variance"]
    given = ids[ids > 0]
    checks = (
        ids <= last_id,
        len(np.unique(given)) == len(given),
        (records["class"] >= 0) & (records["class"] <= LARGEST_CLASS),
        (records["unseen_ns"] >= 0) & (records["unseen_ns"] <= LONGEST_KEEP_S * NS_PER_S),
        # a comparison with NaN is false
        np.abs(position) <= FARTHEST,
        position[:, 2:] >= np.float32(SMALLEST),
        np.abs(records["velocity"]) <= FASTEST,
        np.abs(variance) <= LARGEST_VARIANCE,
    )
    return all(bool(np.all(check)) for check in checks) and _are_covariances(variance.astype(np.float64))


def _are_covariances(variance: NDArray[np.float64]) -> bool:
    pp, pv, vv = variance[..., 0], variance[..., 1], variance[..., 2]
    return bool(((pp > 0) & (vv >= 0) & (pv * pv <= ROUNDING * pp * vv)).all())


def _table(records: NDArray[np.void]) -> Table:
    """Return the tracks in arrays of their own: `records` lies in the client's bytes."""
    motion = Motion(*(records[name].astype(np.float32) for name in ("position", "velocity", "variance")))
    return Table(
        records["id"].astype(np.uint32),
        records["class"].astype(np.int32),
        records["unseen_ns"].astype(np.int64),
        motion,
    )
