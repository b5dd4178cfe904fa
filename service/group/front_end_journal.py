"""A front-end process tells the engine process what happened in it, so that the group has one journal and one count.

Four times a second, and at its end: streams that opened and closed, frames that ended (as one array of integers), the
counts of requests that ended here, its own numbers, and the pictures that a reader of the live page looks at. The
engine process puts them where its observer and its statistics find them (`engine_journal`).

Owner: the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from forebay_server.service.errors import Outcome
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.messages import (
    Finished,
    FrontEndNumbers,
    LookAt,
    PictureCounts,
    Refusals,
    StreamFacts,
    Told,
)
from forebay_server.service.journal.events import FrameEvent, Journal, StreamRecord
from forebay_server.service.journal.pictures import Snapshot
from forebay_server.service.observe.frames import read_events

INTERVAL_S = 0.25
CHUNK_FRAMES = 512  # of one message: half a millisecond of the loop's time


class JournalShipper:
    """See the module.

    Args:
        send: sends a message to the engine process.
        journal: of this process; None: the group has no admin port and makes no spans.
        counts: returns those of all versions.
        numbers: returns the current numbers of this process.
        has_spans: whether spans are made of frames, which then travel one by one.
    """

    def __init__(
        self,
        send: Callable[[Told], None],
        journal: Journal | None,
        counts: Callable[[], Iterable[FrontEndCounts]],
        numbers: Callable[[], FrontEndNumbers],
        *,
        has_spans: bool = False,
    ) -> None:
        self._send = send
        self._journal = journal
        self._counts = counts
        self._numbers = numbers
        self._has_spans = has_spans
        self._pictured: dict[int, StreamRecord] = {}
        self._sent_ns: dict[int, int] = {}  # of pictures: when the result of the last one sent was built

    async def run(self) -> None:
        """Tell again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            while self.tell():
                await asyncio.sleep(0)

    def tell_counts(self) -> None:
        """Tell what was counted, and nothing else: the engine process is about to be asked for its counts."""
        refusals, finished, decoded = self._taken_refusals(), self._taken_finished(), self._taken_decoded()
        if refusals or finished or decoded:
            self._send(Told(refusals=refusals, finished=finished, decoded=decoded))

    def tell_all(self) -> None:
        """Tell everything: this process ends."""
        while self.tell():
            pass

    def tell(self) -> bool:
        """Tell what has happened; return whether there is more."""
        journal = self._journal
        if journal is None:
            refusals, finished, decoded = self._taken_refusals(), self._taken_finished(), self._taken_decoded()
            self._send(Told(refusals=refusals, finished=finished, decoded=decoded, numbers=self._numbers()))
            return False
        # In this order: the frames of a stream travel before the news of its end.
        closed_count = len(journal.closed)
        events = [journal.frames.popleft() for _ in range(min(len(journal.frames), CHUNK_FRAMES))]
        has_more = bool(journal.frames)
        opened = tuple(self._facts(journal.opened.popleft()) for _ in range(len(journal.opened)))
        closed = [journal.closed.popleft() for _ in range(0 if has_more else closed_count)]
        told = Told(
            opened,
            b"" if self._has_spans else read_events(events).tobytes(),
            tuple(_without_record(event) for event in events) if self._has_spans else (),
            tuple((record.uid, _by_value(outcomes), ending) for record, outcomes, ending in closed),
            self._taken_refusals(),
            self._taken_pictures(),
            None if has_more else self._numbers(),
            self._taken_finished(),
            self._taken_decoded(),
        )
        for record, *_ in closed:
            self._pictured.pop(record.uid, None)
            self._sent_ns.pop(record.uid, None)
        self._send(told)
        return has_more

    def look_at(self, look: LookAt) -> None:
        """Keep the next frame of a stream, or keep none: a reader of the live page asks."""
        record = self._pictured.get(look.uid)
        if record is None or record.picture is None:
            return
        if look.is_looked_at:
            record.picture.is_looked_at = True
            record.picture.is_wanted = look.is_wanted
        else:
            record.picture.empty()

    def _facts(self, record: StreamRecord) -> StreamFacts:
        if record.picture is not None:
            self._pictured[record.uid] = record
        return StreamFacts(
            record.uid,
            record.name,
            record.model,
            record.version,
            record.protocol,
            record.trace,
            has_picture=record.picture is not None,
            origin=record.origin,
        )

    def _taken_refusals(self) -> tuple[Refusals, ...]:
        return tuple(each for counts in self._counts() for each in counts.take_refusals())

    def _taken_finished(self) -> tuple[Finished, ...]:
        return tuple(each for counts in self._counts() for each in counts.take_finished())

    def _taken_decoded(self) -> tuple[PictureCounts, ...]:
        return tuple(each for counts in self._counts() for each in counts.take_pictures())

    def _taken_pictures(self) -> tuple[tuple[int, Snapshot], ...]:
        taken: list[tuple[int, Snapshot]] = []
        for uid, record in self._pictured.items():
            latest = None if record.picture is None else record.picture.latest
            if latest is not None and latest.built_ns != self._sent_ns.get(uid):
                self._sent_ns[uid] = latest.built_ns
                taken.append((uid, replace(latest, payload=_as_bytes(latest.payload))))
        return tuple(taken)


def _without_record(event: FrameEvent) -> tuple[int, tuple[object, ...]]:
    return event.stream.uid, tuple(event[1:])


def _by_value(outcomes: Mapping[Outcome, int]) -> dict[str, int]:
    return {outcome.value: count for outcome, count in outcomes.items()}


def _as_bytes(payload: Any) -> Any:  # noqa: ANN401 - a snapshot's payload while it travels
    """Return a payload as bytes, since no view of memory can be pickled."""
    return bytes(payload)
