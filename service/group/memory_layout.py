"""Where everything lies in the memory file of one model version.

Theory of operation
    The engine process makes the file and sends its descriptor; a front-end process maps it. The file is

        [ header | share 0 | share 1 | ... | share N-1 | outputs area ]   share = [ slot 0 | slot 1 | ... | rows area ]

    Front-end process i owns share i. A slot holds one request of one row: its inputs, and behind them the place for its
    outputs. The rows area holds requests of several rows in the same form, wherever the front-end process puts them.
    The front-end process leases a place, writes the inputs and sends a request. Until it is answered the place is the
    engine process's, which reads the inputs and writes the outputs; the answer gives it back.

    A version whose shapes vary has no slots: all its requests are in the rows areas (`packed_arrays`). Behind the
    shares it has an outputs area, for outputs that do not fit in the place of their inputs.

Pure. Sizes are in bytes.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.pictures.device_picture import FilePlace

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 2 * PAGE_BYTES  # `version_header`
ALIGNMENT_BYTES: Final = 64  # a cache line, and enough for every vector load
MAX_FRONT_ENDS: Final = 60  # a cache line of the header for each


class ArraysLimits(NamedTuple):
    """Limits for a version whose shapes vary.

    Attributes:
        inputs_bytes: most that the inputs of one front-end process's requests may hold together.
        outputs_bytes: most that the outputs of one execution may hold.
    """

    inputs_bytes: int = 0
    outputs_bytes: int = 0


NO_ARRAYS: Final = ArraysLimits()


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Where everything lies in the memory file of one version. Made by `layout_of`.

    Attributes:
        front_ends: number of shares.
        slots: of each share; 0 for a version whose shapes vary.
        slot_bytes: distance of slots.
        rows_area_bytes: size of each share's rows area; 0 if the model runs single rows only.
        outputs_area_bytes: size of the outputs area; 0 unless shapes vary.
        input_row_bytes: bytes of one row of each input.
        output_row_bytes: bytes of one row of each output.
        output_dtypes: type of each output.
        output_shapes: shape of one row of each output.
        files: room of a slot's inputs for files; None: there is none.
    """

    front_ends: int
    slots: int
    slot_bytes: int
    rows_area_bytes: int
    outputs_area_bytes: int
    input_row_bytes: tuple[int, ...]
    output_row_bytes: tuple[int, ...]
    output_dtypes: tuple[np.dtype[Any], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    files: FilePlace | None = None

    @property
    def share_bytes(self) -> int:
        """Size of one share, a multiple of a page."""
        return self.slots_bytes + self.rows_area_bytes

    @property
    def slots_bytes(self) -> int:
        """Size of the slots of one share, a multiple of a page."""
        return _rounded(self.slots * self.slot_bytes, PAGE_BYTES)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.outputs_offset + self.outputs_area_bytes

    @property
    def outputs_offset(self) -> int:
        """Where the outputs area begins."""
        return HEADER_BYTES + self.front_ends * self.share_bytes

    def share_offset(self, front_end: int) -> int:
        """Return where the share of a front-end process begins."""
        return HEADER_BYTES + front_end * self.share_bytes

    def slot_offset(self, front_end: int, slot: int) -> int:
        """Return where a slot begins: the input offset of its request."""
        return self.share_offset(front_end) + slot * self.slot_bytes

    def rows_offset(self, front_end: int) -> int:
        """Return where the rows area of a front-end process begins."""
        return self.share_offset(front_end) + self.slots_bytes

    def input_places(self, rows: int) -> tuple[int, ...]:
        """Return where each input of a request of `rows` rows begins, from its input offset."""
        return _places(self.input_row_bytes, rows)

    def output_places(self, rows: int) -> tuple[int, ...]:
        """Return where each output of a request of `rows` rows begins, from its output offset."""
        return _places(self.output_row_bytes, rows)

    def inputs_bytes(self, rows: int) -> int:
        """Return the size of the inputs of a request of `rows` rows, padded: the outputs may follow there."""
        nbytes = _size(self.input_row_bytes, rows)
        return nbytes if self.files is None or rows != 1 else _rounded(max(nbytes, self.files.end), ALIGNMENT_BYTES)

    def outputs_bytes(self, rows: int) -> int:
        """Return the size of the outputs of a request of `rows` rows, padded."""
        return _size(self.output_row_bytes, rows)


def layout_of(
    specs: EngineSpecs,
    front_ends: int,
    permits: int,
    rows_bytes: int,
    arrays: ArraysLimits = NO_ARRAYS,
    files: FilePlace | None = None,
) -> MemoryLayout:
    """Return the layout of a version's memory file.

    Args:
        specs: of the model.
        front_ends: how many front-end processes there are, at most MAX_FRONT_ENDS.
        permits: frames that the whole group may hold. A front-end process has slots for twice its part of them.
        rows_bytes: for requests of several rows of all front-end processes together.
        arrays: for a version whose shapes vary.
        files: room for files; None: requests bring rows only.
    """
    if not 1 <= front_ends <= MAX_FRONT_ENDS:
        raise ValueError(f"{front_ends} front-end processes; there may be 1 to {MAX_FRONT_ENDS}")
    if not specs.is_fixed:
        # Twice as much: blocks of powers of two, and the largest may be as large as all together. A page for each head.
        heads = PAGE_BYTES * most_requests(permits, front_ends)
        inputs, outputs = (_rounded(2 * limit + heads, PAGE_BYTES) for limit in arrays)
        return MemoryLayout(front_ends, 0, 0, inputs, outputs, (), (), (), ())
    input_bytes, output_bytes = (_row_bytes(specs.inputs), _row_bytes(specs.outputs))
    one_row = max(_size(input_bytes, 1), 0 if files is None else _rounded(files.end, ALIGNMENT_BYTES))
    one_row += _size(output_bytes, 1)
    rows_area = 0
    if specs.max_batch_size > 1:
        most = _size(input_bytes, specs.max_batch_size) + _size(output_bytes, specs.max_batch_size)
        rows_area = _rounded(max(2 * most, -(-rows_bytes // front_ends)), PAGE_BYTES)
    return MemoryLayout(
        front_ends,
        slots=most_requests(permits, front_ends),
        slot_bytes=_rounded(max(one_row, 1), PAGE_BYTES if one_row > PAGE_BYTES else ALIGNMENT_BYTES),
        rows_area_bytes=rows_area,
        outputs_area_bytes=0,
        input_row_bytes=input_bytes,
        output_row_bytes=output_bytes,
        output_dtypes=tuple(spec.dtype for spec in specs.outputs),
        output_shapes=tuple(spec.shape for spec in specs.outputs),
        files=files,
    )


def most_requests(permits: int, front_ends: int) -> int:
    """Return how many requests of one front-end process there can be at once: twice its part of the group's permits."""
    return min(permits, -(-2 * permits // front_ends))


def _rounded(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit


def _row_bytes(specs: tuple[TensorSpec, ...]) -> tuple[int, ...]:
    return tuple(spec.row_bytes for spec in specs)


def _places(row_bytes: tuple[int, ...], rows: int) -> tuple[int, ...]:
    places, end = [], 0
    for nbytes in row_bytes:
        places.append(end)
        end += _rounded(nbytes * rows, ALIGNMENT_BYTES)
    return tuple(places)


def _size(row_bytes: tuple[int, ...], rows: int) -> int:
    return sum(_rounded(nbytes * rows, ALIGNMENT_BYTES) for nbytes in row_bytes)
