"""The interface between a batch former and a lane: slots and batches one way, their ends the other way."""

from typing import Protocol

from forebay_server.service.request import Batch, Request


class Lane(Protocol):
    """One model instance as the former sees it: slots to reserve and a method to submit. Thread: the former's."""

    @property
    def index(self) -> int:
        """0 .. lanes-1 of its model version."""
        ...

    @property
    def slot_count(self) -> int:
        """Number of slots."""
        ...

    def try_reserve(self) -> int | None:
        """Take a FREE slot (FREE -> RESERVED) and return its index, or None."""
        ...

    def unreserve(self, slot_index: int) -> None:
        """Return a reserved slot without a batch (RESERVED -> FREE)."""
        ...

    def submit(self, batch: Batch) -> bool:
        """Submit a batch in its reserved slot; return whether it has already ended.

        The former may take the batch back until the lane has started its claim. The slot then comes back as always.
        Blocks: no, or for less time than a hand-over would take.
        """
        ...


class LaneListener(Protocol):
    """Events of a lane for its former. Blocks: no.

    Thread: the lane's d2h thread, or the former's own, inside `Lane.submit`, for a batch that runs inline.
    """

    def arrive(self, request: Request) -> None:
        """Take back a request that failed with its batch, to run it alone."""
        ...

    def compute_ended(self, batch: Batch, ended_ns: int, h2d_ns: int, execute_ns: int) -> None:
        """Execution of `batch` ended at the host's time `ended_ns`; durations come from device events."""
        ...

    def slot_freed(self, lane_index: int, slot_index: int, d2h_ns: int) -> None:
        """A slot is FREE again; `d2h_ns` is the duration of copying its outputs, 0 if the batch failed."""
        ...
