"""Optimization profiles from the batch sizes in use. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.trt.manifest import Shapes


@dataclass(frozen=True, slots=True)
class Rows:
    """The batch sizes of one profile: it runs least .. most and is fastest at best."""

    least: int
    best: int
    most: int


def default_rows(max_batch: int) -> tuple[Rows, ...]:
    """Return a profile for the lone row, the usual batch of live cameras, and one for the rest, best when full."""
    if max_batch < 1:
        raise ModelFileError(f"max batch is {max_batch}, but must be at least 1")
    lone = Rows(1, 1, 1)
    return (lone,) if max_batch == 1 else (lone, Rows(1, max_batch, max_batch))


def parse_rows(text: str) -> tuple[Rows, ...]:
    """Read profiles such as `1:1:1,1:8:16` (least:best:most)."""
    profiles = []
    for part in text.split(","):
        try:
            least, best, most = (int(number) for number in part.split(":"))
        except ValueError:
            raise ModelFileError(f"profile {part!r} is not LEAST:BEST:MOST, as in 1:8:16") from None
        if not 1 <= least <= best <= most:
            raise ModelFileError(f"profile {part!r}: must rise from 1: LEAST <= BEST <= MOST")
        profiles.append(Rows(least, best, most))
    return tuple(profiles)


def shapes_of(rows: Rows, inputs: Mapping[str, Sequence[int]]) -> Shapes:
    """Return a profile's shapes.

    Args:
        rows: its batch sizes.
        inputs: shape by name, -1 for the batch dimension, which is the first, and numbers otherwise.

    Raises:
        ModelFileError: another dimension varies.
    """
    shapes: Shapes = {}
    for name, shape in inputs.items():
        if any(dim < 0 for dim in shape[1:]):
            raise ModelFileError(
                f"input {name!r} has shape {list(shape)}: only the first dimension may vary; export it with fixed "
                "height and width"
            )
        if shape and shape[0] < 0:
            shapes[name] = [[count, *shape[1:]] for count in (rows.least, rows.best, rows.most)]
    return shapes
