"""Turns the journal into counts, histograms, rings and a second-by-second history.

The admin port's thread owns all data here and calls `tick` once a second; the data path calls nothing. All memory is
bounded: by models, by open streams, and by the capacities below, not by time.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from forebay_server.service.clock import Clock
from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import BatchEvent, ClosedEvent, FrameEvent, Journal, StreamRecord
from forebay_server.service.observe.frames import (
    BUILT,
    DEADLINE,
    OK,
    OUTCOME,
    OUTCOMES,
    STREAM,
    UID,
    FrameRing,
    Rows,
    read_events,
)
from forebay_server.service.observe.gone import GoneCameras
from forebay_server.service.observe.model_counts import HISTORY_SECONDS, ModelCounts
from forebay_server.service.observe.spans import Tracing
from forebay_server.service.observe.streams import WORST_SECONDS, StreamTable

RING_FRAMES = 32_768  # 3 MB; 5 s at 6500 frames per second
RING_BATCHES = 8_192
NAMES_KEPT = 4096  # of streams that have closed, for traces
CHUNK_FRAMES = 1024  # the GIL is released between chunks
SECOND_NS = 1_000_000_000


class Observer:
    """See the module. Thread: the admin port's.

    Args:
        journal: emptied at every tick.
        clock: source of monotonic nanoseconds.
        tracing: receives all records; None if no spans are wanted.
    """

    def __init__(self, journal: Journal, clock: Clock, tracing: Tracing | None = None) -> None:
        self.tracing = tracing
        self.streams = StreamTable()
        self.gone = GoneCameras()
        self.models: list[ModelCounts] = []
        self.frames = FrameRing(RING_FRAMES)
        self.batches: deque[BatchEvent] = deque(maxlen=RING_BATCHES)
        self._journal = journal
        self._clock = clock
        self._by_label: dict[str, int] = {}
        self._by_uid: dict[int, StreamRecord] = {}
        self._closed_uids: deque[int] = deque()
        self._second = clock.now_ns() // SECOND_NS

    def tick(self) -> None:
        """Take all records off the journal."""
        journal = self._journal
        now_ns = self._clock.now_ns()
        # In this order: all records of a stream from before its end are in `frames` by now.
        closed = [journal.closed.popleft() for _ in range(len(journal.closed))]
        frames_left = len(journal.frames)
        self._open_new()
        self._add_of_front_ends(now_ns)
        while frames_left > 0:
            events = [journal.frames.popleft() for _ in range(min(frames_left, CHUNK_FRAMES))]
            frames_left -= len(events)
            self._open_new()
            if self.tracing is not None:
                self.tracing.see_frames(events)
            self._add(read_events([event for event in events if event[0].index >= 0]), now_ns)
            self._add_late([event for event in events if event[0].index < 0])
        self._close(closed, now_ns)
        for _ in range(len(journal.batches)):
            self._add_batch(journal.batches.popleft())
        if self.tracing is not None:
            self.tracing.tick()
        self._advance(now_ns // SECOND_NS)

    def name_of(self, uid: int) -> str:
        """Return the name of a stream, open or closed recently; empty for others."""
        record = self._by_uid.get(uid)
        return "" if record is None else record.name

    def open_stream(self, uid: int) -> StreamRecord | None:
        """Return an open stream, or None."""
        record = self._by_uid.get(uid)
        return record if record is not None and self.streams.at(record.index) is record else None

    def _open_new(self) -> None:
        opened = self._journal.opened
        for _ in range(len(opened)):
            record = opened.popleft()
            self.streams.open(record, self._model_of(record.model, record.version), self._clock.now_ns())
            self._by_uid[record.uid] = record
            self.gone.opened(record)

    def _model_of(self, model: str, version: str) -> int:
        label = f"{model}.{version}"
        index = self._by_label.get(label)
        if index is None:
            index = self._by_label[label] = len(self.models)
            self.models.append(ModelCounts(model, version))
        return index

    def _add_of_front_ends(self, now_ns: int) -> None:
        """Count the frames that front-end processes have told, in the order in which their results were built."""
        arrays = [self._journal.rows.popleft() for _ in range(len(self._journal.rows))]
        if not arrays:
            return
        self._open_new()
        rows = np.concatenate(arrays, axis=1)
        rows = rows[:, np.argsort(rows[BUILT], kind="stable")]
        uids, inverse = np.unique(rows[UID], return_inverse=True)
        open_streams = [self.open_stream(uid) for uid in uids.tolist()]
        indices = [-1 if record is None else record.index for record in open_streams]
        rows[STREAM] = np.array(indices, np.int64)[inverse]
        rows = rows[:, rows[STREAM] >= 0]
        for start in range(0, rows.shape[1], CHUNK_FRAMES):
            self._add(rows[:, start : start + CHUNK_FRAMES], now_ns)

    def _add(self, rows: Rows, now_ns: int) -> None:
        if not rows.shape[1]:
            return
        is_late = (rows[OUTCOME] == OK) & (rows[BUILT] > rows[DEADLINE])
        self.streams.count(rows, is_late)
        ages_ns = self.streams.ages_ns(rows, now_ns)
        self.frames.add(rows)
        models = self.streams.models[rows[STREAM]]
        present = np.unique(models) if len(self.models) > 1 else models[:1]
        for index in present.tolist():
            if len(present) == 1:
                self.models[index].add(rows, ages_ns, is_late)
            else:
                chosen = models == index
                self.models[index].add(rows[:, chosen], ages_ns[chosen], is_late[chosen])

    def _add_late(self, events: Sequence[FrameEvent]) -> None:
        """Count requests whose client left, and whose version closed before the event loop came to their end."""
        for record, _, outcome, *_ in events:
            self.models[self._model_of(record.model, record.version)].outcomes[
                OUTCOMES.index(outcome or Outcome.OK)
            ] += 1

    def _close(self, closed: Sequence[ClosedEvent], now_ns: int) -> None:
        """Count the frames that have no record: of clients that left, and records lost under pressure."""
        indices = [record.index for record, *_ in closed if record.index >= 0]
        for record, outcomes, ending in closed:
            if record.index < 0:
                continue
            self.gone.closed(record, ending, now_ns)
            final = np.array([outcomes.get(outcome, 0) for outcome in OUTCOMES])
            missing = np.maximum(final - self.streams.outcomes[record.index], 0)
            self.models[self.streams.models[record.index]].outcomes += missing
            self.streams.close(record)
            self._closed_uids.append(record.uid)
        if indices:
            self.frames.forget(indices)
        while len(self._closed_uids) > NAMES_KEPT:
            self._by_uid.pop(self._closed_uids.popleft(), None)

    def _add_batch(self, batch: BatchEvent) -> None:
        index = self._by_label.get(batch.label)
        if index is None:
            model, _, version = batch.label.rpartition(".")
            index = self._model_of(model, version)
        self.models[index].add_batch(batch)
        self.batches.append(batch)
        if self.tracing is not None:
            self.tracing.see_batch(batch)

    def _advance(self, second: int) -> None:
        """Close every second that has passed; after a pause, at most the last few minutes of it."""
        first = max(self._second, second - HISTORY_SECONDS)
        for _ in range(min(second - first, WORST_SECONDS)):
            self.streams.end_second()
        for at_s in range(first + 1, second + 1):
            for model in self.models:
                model.end_second(at_s)
        self._second = second
