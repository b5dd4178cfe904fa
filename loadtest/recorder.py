"""One row per offered frame, and independent counters of sent and answered frames.

The rows record the outcome of every frame; the counters are incremented at each event (a write, an answer).
`loadtest.accounting` compares the two, so a frame that this code loses shows up as a difference. Owner: the event
loop's thread; no allocation per frame until the planned number is exceeded.
"""

import io
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest.errors import InvalidRunError
from forebay_server.loadtest.target import STAGES, Answer, Outcome

# Times are nanoseconds after the common start; -1: the event did not happen.
ROW = np.dtype(
    [
        ("stream", np.int32),
        ("size_bytes", np.int32),
        ("intended_ns", np.int64),
        ("capture_ns", np.int64),
        ("fired_ns", np.int64),  # when the pacer handed it to its stream
        ("sent_ns", np.int64),  # when it was handed to the connection
        ("done_ns", np.int64),  # when its answer was read
        ("age_us", np.int32),  # done minus the capture time that the server echoed
        ("late_by_us", np.uint32),
        ("batch_size", np.uint16),
        ("outcome", np.uint8),
        ("was_idle", np.bool_),  # its stream's queue was empty: any delay before sent_ns is the generator's own
        ("stages_us", np.uint32, (len(STAGES) + 1,)),  # STAGES, then the server's total; all 0 if not reported
    ]
)
Rows = npt.NDArray[np.void]


@dataclass(slots=True)
class Counters:
    """Counts of events over the whole run, incremented at each event."""

    offered: int = 0
    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)  # by Outcome name
    client_dropped: int = 0
    out_of_order: int = 0
    duplicates: int = 0  # a second answer for one frame
    strangers: int = 0  # an answer for a frame that was never sent
    garbage: int = 0  # messages that could not be parsed
    wrong_echo: int = 0  # answers whose capture time is not the frame's
    reconnects: int = 0  # streams reopened because the server asked for it
    broken_streams: int = 0
    sent_bytes: int = 0
    first_error: str = ""

    def add(self, other: "Counters") -> None:
        """Add another process's counters."""
        for name in (item.name for item in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                self.answers = {key: mine.get(key, 0) + theirs.get(key, 0) for key in mine | theirs}
            elif isinstance(mine, str):
                self.first_error = mine or theirs
            else:
                setattr(self, name, mine + theirs)

    def to_dict(self) -> dict[str, object]:
        """Return the counters for a message between processes; Counters(**...) reads it."""
        return asdict(self)


class Recorder:
    """Records the frames of one process. See the module."""

    def __init__(self, start_ns: int, planned: int) -> None:
        self._start_ns = start_ns
        self._rows: Rows = np.zeros(max(planned, 1024), ROW)
        self._used = 0
        self._newest: dict[int, int] = {}  # stream -> newest answered row
        self.counters = Counters()

    @property
    def rows(self) -> Rows:
        """The rows so far; a view."""
        return self._rows[: self._used]

    def offer(self, stream: int, intended_ns: int, capture_ns: int, fired_ns: int, *, was_idle: bool) -> int:
        """Record that a frame is due; return its row. `fired_ns` is absolute, the others relative to the start."""
        if self._used == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(len(self._rows), ROW)])
        row = self._used
        self._used += 1
        fired_ns -= self._start_ns
        nothing = (0,) * (len(STAGES) + 1)
        values = (stream, 0, intended_ns, capture_ns, fired_ns, -1, -1, -1, 0, 0, Outcome.QUEUED, was_idle, nothing)
        self._rows[row] = values
        self.counters.offered += 1
        return row

    def sent(self, row: int, now_ns: int, size_bytes: int) -> None:
        """Record that a frame is handed to the connection now."""
        entry = self._rows[row]
        entry["sent_ns"] = now_ns - self._start_ns
        entry["size_bytes"] = size_bytes
        entry["outcome"] = Outcome.SENT
        self.counters.sent += 1
        self.counters.sent_bytes += size_bytes

    def answered(self, row: int, now_ns: int, answer: Answer, capture_time_us: int) -> None:
        """Record the only answer to a frame that was sent."""
        entry = self._rows[row]
        counters = self.counters
        stream = int(entry["stream"])
        if row < self._newest.get(stream, -1):
            counters.out_of_order += 1
        self._newest[stream] = max(row, self._newest.get(stream, -1))
        entry["done_ns"] = now_ns - self._start_ns
        entry["age_us"] = min(now_ns // 1000 - answer.capture_time_us, 2**31 - 1)
        if answer.capture_time_us != capture_time_us:
            counters.wrong_echo += 1
            entry["age_us"] = -1
        entry["late_by_us"] = min(answer.late_by_us, 2**32 - 1)
        entry["batch_size"] = min(answer.batch_size, 2**16 - 1)
        entry["outcome"] = answer.outcome
        if answer.stages_us:
            entry["stages_us"] = answer.stages_us
        name = answer.outcome.name
        counters.answers[name] = counters.answers.get(name, 0) + 1

    def drop(self, row: int) -> None:
        """Record that the client gives up a frame that it has not sent."""
        self._rows[row]["outcome"] = Outcome.CLIENT_DROPPED
        self.counters.client_dropped += 1

    def close(self) -> Rows:
        """End every open frame (sent: lost; queued: dropped) and return all rows."""
        outcomes = self.rows["outcome"]
        self.counters.client_dropped += int(np.count_nonzero(outcomes == Outcome.QUEUED))
        outcomes[outcomes == Outcome.QUEUED] = Outcome.CLIENT_DROPPED
        outcomes[outcomes == Outcome.SENT] = Outcome.LOST
        return self.rows


def pack(rows: Rows) -> bytes:
    """Return rows as bytes for another process."""
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()


def unpack(data: bytes) -> Rows:
    """Read the bytes of `pack`."""
    rows: Rows = np.load(io.BytesIO(data), allow_pickle=False)
    if rows.dtype != ROW:
        raise InvalidRunError("another process sent rows of another version")
    return rows
