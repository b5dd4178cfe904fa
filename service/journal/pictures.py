"""Where a stream's session leaves its latest frame for the operator's page; see `service.observe.pictures`.

Owner: `PictureSlot.latest` goes from the event loop to the observer's thread in one assignment; all else is the
observer's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One frame that ended well.

    Attributes:
        payload: as sent, and keeps the received message alive; of video, small RGB pixels.
        encoding: forebay.v1 Encoding of `payload`.
        size: (width, height) of `payload` in pixels.
        results: typed results; empty where only tensors were wanted.
        seq: the client's number.
        built_ns: when its result was built.
        sent_size: (width, height) as sent, where `payload` is smaller.
    """

    payload: memoryview
    encoding: int
    size: tuple[int, int]
    results: Iterable[Any]
    seq: int
    built_ns: int
    sent_size: tuple[int, int] | None = None


class PictureSlot:
    """Where one stream's session leaves a frame.

    Attributes:
        is_wanted: the next frame is to be kept. Raised by the observer, lowered by the session.
        is_looked_at: whether the kept frame is still wanted. Written by the observer.
        latest: the latest frame kept.
    """

    __slots__ = ("is_looked_at", "is_wanted", "latest")

    def __init__(self) -> None:
        self.is_wanted = False
        self.is_looked_at = False
        self.latest: Snapshot | None = None

    def want(self) -> None:
        """Have the next frame kept. Thread: the observer's."""
        self.is_wanted = True

    def put(self, snapshot: Snapshot) -> None:
        """Leave a frame. Thread: the event loop's."""
        if self.is_looked_at:
            self.latest = snapshot

    def empty(self) -> None:
        """Empty the slot: no reader looks any more. Thread: the observer's."""
        self.is_looked_at = self.is_wanted = False
        self.latest = None
