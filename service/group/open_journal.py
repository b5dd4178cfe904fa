"""The journal of a front-end process before several engine processes: it knows the streams that are open.

The first engine process has the journal of the group. If it ends, the one that takes its place has to learn of them.

Thread: as `Journal`; `tell_again` is the event loop's.
"""

from collections.abc import Mapping
from typing import Any

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import Ending, Journal, StreamRecord


class OpenJournal(Journal):
    """See the module."""

    def __init__(self, first_uid: int = 1) -> None:
        super().__init__(first_uid)
        self._open: dict[int, StreamRecord] = {}

    def open(self, name: str, model: str, version: str, protocol: str = "frames", **more: Any) -> StreamRecord:  # noqa: ANN401
        """See `Journal.open`."""
        record = super().open(name, model, version, protocol, **more)
        self._open[record.uid] = record
        return record

    def close(self, record: StreamRecord, outcomes: Mapping[Outcome, int], ending: Ending = Ending.ENDED) -> None:
        """See `Journal.close`."""
        self._open.pop(record.uid, None)
        super().close(record, outcomes, ending)

    def tell_again(self) -> None:
        """Have every open stream told as a new one."""
        waiting = {record.uid for record in self.opened}
        self.opened.extendleft(record for uid, record in reversed(self._open.items()) if uid not in waiting)
