"""Numbers of one process of a server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessNumbers:
    """One process.

    Attributes:
        name: for people.
        pid: its number.
        cpu_s: CPU time since it began.
        memory_bytes: resident.
        connections: that are open; None for a process without clients.
        streams: of frames that are open; None likewise.
    """

    name: str
    pid: int
    cpu_s: float
    memory_bytes: int
    connections: int | None = None
    streams: int | None = None
