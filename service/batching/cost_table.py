"""The cost of a batch: median durations per batch size, measured at warm-up and kept on disk between runs.

A `CostTable` belongs to one (model, version, engine, device, precision). It is plain data: `cost_model` reads it,
`calibrate` fills it, `save_table` and `load_table` keep it. A disk that cannot be written, a file that cannot be read
and a file of something else are all the same as no file: the table is measured again.

Guarantees of a table: sizes rise strictly; durations are positive and never fall with the size (isotonic), however
noisy the measurements were.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from forebay_server.service.batching.constants import MAX_FILE_BYTES, MAX_KEPT_NUMBER, TABLE_FORMAT


class CostTableError(ValueError):
    """The numbers cannot be a cost table; the message says which and why."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Durations of one batch: upload (gathering included), execution, download."""

    h2d_ns: int
    execute_ns: int
    d2h_ns: int


@dataclass(frozen=True, slots=True)
class CostIdentity:
    """The model and machine that a table was measured on. A table with another identity is not used."""

    model: str = ""
    version: str = ""
    engine: str = ""
    device: str = ""
    precision: str = ""


@dataclass(frozen=True, slots=True)
class CostTable:
    """Median durations by batch size, in rising order of size.

    Attributes:
        sizes: batch sizes in rows.
        h2d_ns: upload, one per size.
        execute_ns: execution, one per size.
        d2h_ns: download, one per size.
        identity: the model and machine that it was measured on.
    """

    sizes: tuple[int, ...]
    h2d_ns: tuple[int, ...]
    execute_ns: tuple[int, ...]
    d2h_ns: tuple[int, ...]
    identity: CostIdentity = CostIdentity()

    def __post_init__(self) -> None:
        sizes = self.sizes
        if not sizes or sizes[0] < 1 or any(b <= a for a, b in pairwise(sizes)):
            raise CostTableError(f"batch sizes must be at least 1 and rise strictly, not {list(sizes)}")
        for name in ("h2d_ns", "execute_ns", "d2h_ns"):
            durations = getattr(self, name)
            if len(durations) != len(sizes):
                raise CostTableError(f"{name} has {len(durations)} entries for {len(sizes)} batch sizes")
            if any(not isinstance(ns, int) or ns < 0 for ns in durations):
                raise CostTableError(f"{name} must hold whole nanoseconds, at least 0, not {list(durations)}")
            object.__setattr__(self, name, isotonic(durations))
        if self.execute_ns[0] < 1:
            raise CostTableError("execution of the smallest batch takes no time: it was not measured")

    @classmethod
    def from_times(cls, times: dict[int, StageTimes], identity: CostIdentity = CostIdentity()) -> "CostTable":
        """Build a table from measured times by batch size."""
        sizes = tuple(sorted(times))
        return cls(
            sizes,
            tuple(times[size].h2d_ns for size in sizes),
            tuple(max(1, times[size].execute_ns) for size in sizes),
            tuple(times[size].d2h_ns for size in sizes),
            identity,
        )

    @classmethod
    def slowest(cls, tables: Sequence["CostTable"]) -> "CostTable":
        """Return the longest duration of each size and stage, of tables of the same sizes; the first's identity."""

        def longest(name: str) -> tuple[int, ...]:
            return tuple(max(column) for column in zip(*(getattr(table, name) for table in tables), strict=True))

        first = tables[0]
        return cls(first.sizes, longest("h2d_ns"), longest("execute_ns"), longest("d2h_ns"), first.identity)

    def to_json(self) -> str:
        """Return the table as JSON text."""
        return json.dumps({"format": TABLE_FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "CostTable":
        """Read what `to_json` wrote. Raises CostTableError for anything else."""
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("format") != TABLE_FORMAT:
                raise CostTableError("unknown format of a cost table")
            identity = CostIdentity(**data.pop("identity"))
            columns = {name: tuple(values) for name, values in data.items()}
            for value in chain.from_iterable(columns.values()):
                if type(value) is not int or not 0 <= value <= MAX_KEPT_NUMBER:
                    raise CostTableError(f"{value!r:.40} is no size and no duration")
            return cls(**columns, identity=identity)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CostTableError(f"not a cost table: {error}") from error


def isotonic(values: Sequence[int]) -> tuple[int, ...]:
    """Return the closest sequence (least squares) that never falls: pool adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            previous, weight = pools.pop()
            mean = (mean * count + previous * weight) / (count + weight)
            count += weight
        pools.append((mean, count))
    return tuple(round(mean) for mean, count in pools for _ in range(count))


def load_table(path: Path, identity: CostIdentity) -> CostTable | None:
    """Return the table kept at `path`, or None: no such file, unreadable, or not of `identity`."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:  # reading a pipe would wait for a writer
            return None
        table = CostTable.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CostTableError):
        return None
    return table if table.identity == identity else None


def save_table(path: Path, table: CostTable) -> bool:
    """Keep `table` at `path`, whole or not at all; return False where that cannot be done."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(table.to_json(), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # half of it, on a disk that is full
        return False
    return True
