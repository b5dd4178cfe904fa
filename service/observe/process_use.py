"""CPU and memory of each process of the server, for the page. Owner: the observer's thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.observe.gauges import ServerGauges

LEAST_NS = 500_000_000  # processes are accounted in ticks of 10 ms


@dataclass(slots=True)
class _Measured:
    at_ns: int
    cpu_s: float
    cores: float = 0.0


class ProcessUse:
    """See the module."""

    def __init__(self) -> None:
        self._measured: dict[int, _Measured] = {}  # by pid

    def rows(self, own: ServerGauges, front_ends: Sequence[ProcessNumbers], now_ns: int) -> list[dict[str, Any]]:
        """Return a row for each process: its name, cores in use, memory in MB, connections, streams of frames.

        Args:
            own: of this process.
            front_ends: the front-end processes; none for a server of one process.
            now_ns: the current time.
        """
        name = "engine process" if front_ends else "server"
        rows = [self._row(ProcessNumbers(name, own.pid, own.cpu_s, own.memory_bytes), now_ns)]
        rows += [self._row(each, now_ns) for each in front_ends]
        self._measured = {pid: self._measured[pid] for pid in (own.pid, *(each.pid for each in front_ends))}
        return rows

    def _row(self, process: ProcessNumbers, now_ns: int) -> dict[str, Any]:
        measured = self._measured.setdefault(process.pid, _Measured(now_ns, process.cpu_s))
        elapsed_ns = now_ns - measured.at_ns
        if elapsed_ns > LEAST_NS:
            measured.cores = (process.cpu_s - measured.cpu_s) * 1e9 / elapsed_ns
            measured.at_ns, measured.cpu_s = now_ns, process.cpu_s
        return {
            "name": process.name,
            "pid": process.pid,
            "cpu": round(measured.cores, 2),
            "memory_mb": round(process.memory_bytes / 1e6),
            "connections": process.connections,
            "streams": process.streams,
        }
