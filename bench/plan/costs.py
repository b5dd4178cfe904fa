"""The numbers that a plan is computed from: costs of a model's batches and of a frame's way to them, on one machine.

Plain data. A file of it is written by `forebay plan --save` and read by `--costs`.
"""

import json
import math
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from forebay_server.bench.plan.real_runs import SLOWDOWNS, RealRuns
from forebay_server.service.batching.cost_table import CostTable, CostTableError

FORMAT = "forebay.plan.costs/1"
MOST_FILE_BYTES = 1 << 20
LEAST_SPEED = 0.05
"""Of cores in a part of the measurement. Less means that nearly all of the part was taken away, and says nothing."""

MOST_CORES = 4096
"""Of a machine, and instances on it: the simulation keeps account of each. More is a mistake in the file."""


class CostsError(ValueError):
    """The file holds no costs; the message says why."""


@dataclass(frozen=True, slots=True)
class FrameCosts:
    """CPU time of one frame outside its model, in nanoseconds.

    Attributes:
        transport_ns: gRPC's own threads, which run beside the event loop.
        loop_ns: the event loop: reading, admission, writing.
        decode_ns: workers: decoding and resizing.
        result_ns: workers: the typed result.
        stage_ns: the other threads of the model: former, upload, download.
        camera_ns: the camera's side, which counts only for cameras on the same machine.
    """

    transport_ns: int
    loop_ns: int
    decode_ns: int
    result_ns: int
    stage_ns: int
    camera_ns: int = 0

    def __post_init__(self) -> None:
        """Reject durations that are none."""
        for name, value in asdict(self).items():
            if type(value) is not int or value < 0:
                raise CostsError(f"{name} must be whole nanoseconds, at least 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class PlanCosts:
    """The measured costs of one model and one kind of frame.

    Attributes:
        model: its name.
        encoding: of the frames, as `forebay load --encoding` names it.
        width: of a frame in pixels; 0 for tensors.
        height: of a frame in pixels; 0 for tensors.
        frame_bytes: mean size of a message.
        table: of the model, as its server calibrated it.
        executed_sizes: batch sizes that are executed; others are padded to the next one.
        instances: of the model on one machine.
        strands: cores that one execution uses; 0: it runs on a GPU and uses none.
        scatter: relative standard deviation of an execution's duration.
        frame: outside the model.
        cores: of the machine on which all this was measured.
        others_cores: that other programs used there meanwhile, on average.
        speeds: of the cores in each part of the measurement, relative to its mean; empty: always the mean.
        slowdown: duration of each step in a real server at its limit, over the simulated one; 1.0: not known.
        real: the runs from which the slowdown follows; None: there were none, as in files of older versions.
    """

    model: str
    encoding: str
    width: int
    height: int
    frame_bytes: int
    table: CostTable
    executed_sizes: tuple[int, ...]
    instances: int
    strands: int
    scatter: float
    frame: FrameCosts
    cores: int
    others_cores: float = 0.0
    speeds: tuple[float, ...] = ()
    slowdown: float = 1.0
    real: RealRuns | None = None

    def __post_init__(self) -> None:
        """Reject numbers with which nothing can be computed."""
        _check_kinds(self)
        _check_sizes(self.executed_sizes, self.table.sizes[-1])
        if not (
            1 <= self.instances <= MOST_CORES and 1 <= self.cores <= MOST_CORES and 0 <= self.strands <= MOST_CORES
        ):
            raise CostsError(f"instances and cores must be from 1 to {MOST_CORES}, strands from 0")
        if not 0.0 <= self.others_cores < math.inf:
            raise CostsError(f"others_cores is {self.others_cores}: it must be at least 0")
        if not all(LEAST_SPEED <= speed <= 1.0 / LEAST_SPEED for speed in self.speeds):
            raise CostsError(f"speeds are {self.speeds}: each must be from {LEAST_SPEED} to {1.0 / LEAST_SPEED:g}")
        if not SLOWDOWNS[0] <= self.slowdown <= SLOWDOWNS[-1]:
            raise CostsError(f"slowdown is {self.slowdown}: it must be from {SLOWDOWNS[0]} to {SLOWDOWNS[-1]}")
        if not 0.0 <= self.scatter <= 2.0 or math.isnan(self.scatter):
            raise CostsError(f"scatter is {self.scatter}: it must be from 0 to 2")

    def slowed(self) -> "PlanCosts":
        """Return costs that have the slowdown in each of their times, and none beside them."""
        table = self.table
        return replace(
            self,
            frame=FrameCosts(*(round(ns * self.slowdown) for ns in astuple(self.frame))),
            table=replace(
                table,
                h2d_ns=tuple(round(ns * self.slowdown) for ns in table.h2d_ns),
                execute_ns=tuple(max(1, round(ns * self.slowdown)) for ns in table.execute_ns),
                d2h_ns=tuple(round(ns * self.slowdown) for ns in table.d2h_ns),
            ),
            slowdown=1.0,
        )

    def to_json(self) -> str:
        """Return the costs as JSON text."""
        return (
            json.dumps({"format": FORMAT, **asdict(self), "table": json.loads(self.table.to_json())}, indent=1) + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> "PlanCosts":
        """Read what `to_json` wrote. Raises CostsError for anything else."""
        try:
            data: dict[str, Any] = json.loads(text)
            _check_format(data.pop("format", None))
            return cls(
                **{
                    **data,
                    "table": CostTable.from_json(json.dumps(data["table"])),
                    "frame": FrameCosts(**data["frame"]),
                    "executed_sizes": tuple(data["executed_sizes"]),
                    "speeds": tuple(data.get("speeds", ())),
                    "real": RealRuns.from_data(data["real"]) if data.get("real") is not None else None,
                }
            )
        except CostsError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CostTableError) as error:
            raise CostsError(f"it cannot be read: {error}") from error


def _check_kinds(costs: PlanCosts) -> None:
    for name in ("model", "encoding"):
        if not isinstance(value := getattr(costs, name), str):
            raise CostsError(f"{name} must be text, not {value!r:.40}")
    for name in ("width", "height", "frame_bytes", "instances", "strands", "cores"):
        if type(value := getattr(costs, name)) is not int or value < 0:
            raise CostsError(f"{name} must be a whole number of at least 0, not {value!r:.40}")
    for name in ("scatter", "others_cores", "slowdown"):
        if type(value := getattr(costs, name)) not in (int, float):
            raise CostsError(f"{name} must be a number, not {value!r:.40}")


def _check_sizes(executed: tuple[int, ...], most: int) -> None:
    are_whole = all(type(size) is int for size in executed)
    if not executed or not are_whole or executed[0] < 1 or executed[-1] > most or sorted(set(executed)) != [*executed]:
        raise CostsError(f"executed_sizes must be whole numbers that rise, from 1 to the table's largest batch, {most}")


def _check_format(found: object) -> None:
    if found != FORMAT:
        raise CostsError(f'it has no "format": "{FORMAT}"')


def read_costs(path: Path) -> PlanCosts:
    """Read a file of costs. Raises CostsError, which names the file and the remedy."""
    try:
        with path.open(encoding="utf-8") as file:
            return PlanCosts.from_json(file.read(MOST_FILE_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CostsError(f"cannot read {path}: {reason}") from error
    except CostsError as error:
        raise CostsError(f"{path} is no file of costs: {error}; `forebay plan MODEL --save FILE` writes one") from error
