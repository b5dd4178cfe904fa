"""The latest picture of a stream, for readers of the live page. Off unless settings and client allow it.

Theory of operation
    A stream that allows pictures has a `PictureSlot`. While no reader looks at it, its session reads one flag per frame
    and does nothing. A look raises the flag, at most once a second; the session then keeps the payload of the next
    frame, which is not copied, and puts it here together with its result. Of video, whose payload alone cannot be
    decoded, the worker that decodes the frame makes a small picture of it. The observer's thread makes the small JPEG
    when a reader asks for it. A slot that no reader has asked for in some seconds, or whose stream has closed, is
    emptied.

    Memory: `MAX_LOOKED_AT` streams at once, each with at most two payloads and one small picture.

Owner: `PictureSlot.latest` goes from the event loop to the observer's thread in one assignment; the observer owns the
rest.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forebay_server.service.clock import Clock
from forebay_server.service.journal.pictures import PictureSlot, Snapshot

INTERVAL_NS = 1_000_000_000
LOOKING_NS = 5_000_000_000  # a look counts for this long after the last request
MAX_LOOKED_AT = 4
MAX_RESULTS = 100

MakeJpeg = Callable[[memoryview, int, tuple[int, int]], tuple[bytes, int, int]]
"""Converts payload, encoding and size as sent to a small JPEG, its width and height. Raises if decoding fails."""


@dataclass(slots=True)
class _Look:
    """A stream that a reader looks at."""

    slot: PictureSlot
    asked_ns: int
    due_ns: int = 0  # time from which the next frame may be kept
    shown: dict[str, Any] | None = None
    built_ns: int = 0


class TooManyLooksError(Exception):
    """The maximum number of streams is looked at already."""


class Pictures:
    """See the module's theory of operation.

    Args:
        make_jpeg: called on this thread, once for each picture.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, make_jpeg: MakeJpeg, clock: Clock) -> None:
        self._make_jpeg = make_jpeg
        self._clock = clock
        self._looks: dict[int, _Look] = {}

    def look(self, uid: int, slot: PictureSlot) -> str:
        """Return the latest picture of a stream as JSON, `{}` until there is one, and ask for the next.

        Raises:
            TooManyLooksError: the maximum number of other streams is looked at.
        """
        now_ns = self._clock.now_ns()
        look = self._looks.get(uid)
        if look is None:
            if len(self._looks) >= MAX_LOOKED_AT:
                raise TooManyLooksError
            look = self._looks[uid] = _Look(slot, now_ns)
        slot.is_looked_at = True
        look.asked_ns = now_ns
        snapshot, slot.latest = slot.latest, None
        if snapshot is not None:
            look.shown, look.built_ns = self._shown(snapshot), snapshot.built_ns
        if now_ns >= look.due_ns:
            look.due_ns = now_ns + INTERVAL_NS
            slot.want()
        if look.shown is None:
            return "{}"
        return json.dumps({**look.shown, "shown_after_ms": (now_ns - look.built_ns) // 1_000_000})

    def tick(self, is_open: Callable[[int], bool]) -> None:
        """Release pictures that no reader asks for any more, and those of closed streams."""
        now_ns = self._clock.now_ns()
        for uid, look in list(self._looks.items()):
            has_closed = not is_open(uid)
            if now_ns - look.asked_ns <= LOOKING_NS and not has_closed:
                continue
            # an open stream's session may be about to put a picture in: empty it once more
            if has_closed or not look.slot.is_looked_at:
                del self._looks[uid]
            look.slot.empty()

    def _shown(self, snapshot: Snapshot) -> dict[str, Any]:
        jpeg, width, height = self._make_jpeg(snapshot.payload, snapshot.encoding, snapshot.size)
        results = list(snapshot.results)[:MAX_RESULTS]
        return {
            "seq": snapshot.seq,
            "width": width,
            "height": height,
            "sent": list(snapshot.sent_size or snapshot.size),
            "results": [
                {"label": each.label, "score": round(each.score, 3), "box": _corners(getattr(each, "box", None))}
                for each in results
            ],
            "jpeg": base64.b64encode(jpeg).decode(),
        }


def _corners(box: Any) -> list[float] | None:  # noqa: ANN401 - of `service.results`, which lies above
    return None if box is None else [round(edge, 4) for edge in box]
