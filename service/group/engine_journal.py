"""The engine process's part of the group's one journal: puts what front-end processes tell where its readers find it.

Streams keep the numbers that their front-end process gave them, which are unique in the group. The requests of the
Open Inference Protocol of one version are one stream in the journal, although several processes took them.

Owner: the event loop's thread. The observer's thread reads the journal, and asks for pictures (`RemotePicture`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from forebay_server.service.errors import Outcome
from forebay_server.service.group.messages import FrontEndNumbers, LookAt, StreamFacts, Told
from forebay_server.service.journal.events import Ending, FrameEvent, Journal, StreamRecord
from forebay_server.service.journal.pictures import PictureSlot
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.observe.frames import COLUMNS, UID

INFERENCE = "inference"  # protocol of the record that all requests of a version share


class RemotePicture(PictureSlot):
    """The picture of a stream whose session is in a front-end process: asks that process to keep a frame.

    Args:
        ask: sends a message to the front-end process. Thread: the observer's.
        uid: of the stream.
    """

    __slots__ = ("_ask", "_uid")

    def __init__(self, ask: Callable[[LookAt], None], uid: int) -> None:
        super().__init__()
        self._ask = ask
        self._uid = uid

    def want(self) -> None:
        """Have the next frame kept."""
        super().want()
        self._ask(LookAt(self._uid, is_wanted=True, is_looked_at=True))

    def empty(self) -> None:
        """Empty the slot: no reader looks any more."""
        super().empty()
        self._ask(LookAt(self._uid, is_wanted=False, is_looked_at=False))


class GroupJournal:
    """The part of the journal that all front-end processes share.

    Args:
        journal: of the engine process; None: it has no reader.
        statistics: returns those of a version, by its number; None for one that has gone.
    """

    def __init__(self, journal: Journal | None, statistics: Callable[[int], VersionStatistics | None]) -> None:
        self.journal = journal
        self.statistics = statistics
        self._inference: dict[tuple[str, str], tuple[StreamRecord, set[int]]] = {}  # with the uids that it stands for

    def record_of(self, facts: StreamFacts, ask: Callable[[LookAt], None]) -> StreamRecord:
        """Return the record of a stream that was opened, and add it to the journal if it is new."""
        key = (facts.model, facts.version)
        if facts.protocol == INFERENCE and key in self._inference:
            record, uids = self._inference[key]
            uids.add(facts.uid)
            return record
        picture = RemotePicture(ask, facts.uid) if facts.has_picture else None
        record = StreamRecord(
            facts.name, facts.model, facts.version, facts.protocol, facts.uid, facts.trace, picture, facts.origin
        )
        if facts.protocol == INFERENCE:
            self._inference[key] = (record, {facts.uid})
        if self.journal is not None:
            self.journal.opened.append(record)
        return record

    def close(
        self, uid: int, record: StreamRecord, outcomes: Mapping[Outcome, int], ending: Ending = Ending.ENDED
    ) -> None:
        """Record that a stream has ended; of a shared record, that one of its streams has."""
        if record.protocol == INFERENCE:
            _, uids = self._inference[record.model, record.version]
            uids.discard(uid)
            if uids:
                return
            del self._inference[record.model, record.version]
        if self.journal is not None:
            self.journal.close(record, outcomes, ending)


class JournalReceiver:
    """Takes what one front-end process tells.

    Args:
        group: shared by all.
        ask: sends a message to the front-end process. Thread: any.

    Attributes:
        numbers: of the process, as it last told them.
    """

    def __init__(self, group: GroupJournal, ask: Callable[[LookAt], None]) -> None:
        self.numbers = FrontEndNumbers()
        self._group = group
        self._ask = ask
        self._records: dict[int, StreamRecord] = {}

    def on_told(self, told: Told) -> None:
        """Put the news of a front-end process into the journal and the statistics."""
        for facts in told.opened:
            self._records[facts.uid] = self._group.record_of(facts, self._ask)
        self._take_frames(told)
        for uid, outcomes, ending in told.closed:
            record = self._records.pop(uid, None)
            if record is not None:
                self._group.close(uid, record, {Outcome(value): count for value, count in outcomes.items()}, ending)
        self._take_counts(told)
        self.numbers = told.numbers or self.numbers

    def _take_counts(self, told: Told) -> None:
        for refusals in told.refusals:
            statistics = self._group.statistics(refusals.number)
            if statistics is not None:
                statistics.add_refusals(Outcome(refusals.outcome), refusals.count, refusals.total_ns)
        for finished in told.finished:
            statistics = self._group.statistics(finished.number)
            if statistics is not None:
                statistics.add_successes(finished.successes)
        for decoded in told.decoded:
            statistics = self._group.statistics(decoded.number)
            if statistics is not None:
                statistics.add_pictures(decoded.counts)

    def _take_frames(self, told: Told) -> None:
        records, journal = self._records, self._group.journal
        if journal is None:
            return
        if told.rows:
            journal.rows.append(self._rows(told.rows))
        journal.frames.extend(FrameEvent(records[uid], *rest) for uid, rest in told.events if uid in records)
        for uid, snapshot in told.pictures:
            if uid in records and (picture := records[uid].picture) is not None:
                picture.put(replace(snapshot, payload=memoryview(snapshot.payload)))

    def end(self) -> None:
        """Close the streams of a process that has ended: how their last frames ended is not known."""
        for uid, record in self._records.items():
            self._group.close(uid, record, {}, Ending.LOST)
        self._records.clear()

    def _rows(self, data: bytes) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
        """Return columns of frames, with the uid of the record where several streams share one."""
        rows = np.frombuffer(data, np.int64).reshape(COLUMNS, -1).copy()
        shared = {uid: record.uid for uid, record in self._records.items() if record.uid != uid}
        for uid, own in shared.items():
            rows[UID][rows[UID] == uid] = own
        return rows
