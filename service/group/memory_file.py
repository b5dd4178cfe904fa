"""Memory that the processes of a group share: one file for each model version, and one for counts.

Theory of operation
    The engine process makes the files and sends their descriptors; a front-end process maps them. A version's file is

        [ header | share 0 | share 1 | ... | share N-1 | outputs area ]   share = [ slot 0 | slot 1 | ... | rows area ]

    Front-end process i owns share i. A slot holds one request of one row: its inputs, and behind them the place for its
    outputs. The rows area holds requests of several rows in the same form, wherever the front-end process puts them.
    The front-end process leases a place, writes the inputs and sends a request. Until it is answered the place is the
    engine process's, which reads the inputs and writes the outputs; the answer gives it back.

    A version whose shapes vary has no slots: all its requests are in the rows areas (`packed_arrays`). Behind the
    shares it has an outputs area, for outputs that do not fit in the place of their inputs.

    The header holds numbers of 64 bits, each with one writer: the feasibility that admission reads, from the engine
    process, and how long delivery takes, from each front-end process. A number is read and written whole; two numbers
    that are read one after the other may be of neighbouring moments.

Thread: any. Sizes are in bytes. A file cannot shrink or grow once it is made: no process can pull memory from under
another one.
"""

import contextlib
import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.request import Feasibility

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = PAGE_BYTES
ALIGNMENT_BYTES: Final = 64  # a cache line, and enough for every vector load
MAX_FRONT_ENDS: Final = 60  # a cache line of the header for each

_LEAST_SERVICE, _EGRESS, _EXECUTED = range(3)
_FIRST_FRONT_END, _STRIDE = 16, 8  # numbers: the engine process's two cache lines, then a line for each front end
_MEAN, _UPPER, _INTERVAL, _REACHED, _REACHED_COUNT = range(5)


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
        return _size(self.input_row_bytes, rows)

    def outputs_bytes(self, rows: int) -> int:
        """Return the size of the outputs of a request of `rows` rows, padded."""
        return _size(self.output_row_bytes, rows)


def layout_of(
    specs: EngineSpecs, front_ends: int, permits: int, rows_bytes: int, arrays: ArraysLimits = NO_ARRAYS
) -> MemoryLayout:
    """Return the layout of a version's memory file.

    Args:
        specs: of the model.
        front_ends: how many front-end processes there are, at most MAX_FRONT_ENDS.
        permits: frames that the whole group may hold. A front-end process has slots for twice its part of them.
        rows_bytes: for requests of several rows of all front-end processes together.
        arrays: for a version whose shapes vary.
    """
    if not 1 <= front_ends <= MAX_FRONT_ENDS:
        raise ValueError(f"{front_ends} front-end processes; there may be 1 to {MAX_FRONT_ENDS}")
    if not specs.is_fixed:
        # Twice as much: blocks of powers of two, and the largest may be as large as all together. A page for each head.
        heads = PAGE_BYTES * most_requests(permits, front_ends)
        inputs, outputs = (_rounded(2 * limit + heads, PAGE_BYTES) for limit in arrays)
        return MemoryLayout(front_ends, 0, 0, inputs, outputs, (), (), (), ())
    input_bytes, output_bytes = (_row_bytes(specs.inputs), _row_bytes(specs.outputs))
    one_row = _size(input_bytes, 1) + _size(output_bytes, 1)
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
    )


def most_requests(permits: int, front_ends: int) -> int:
    """Return how many requests of one front-end process there can be at once: twice its part of the group's permits."""
    return min(permits, -(-2 * permits // front_ends))


class MemoryFile:
    """A file in memory that has no name, mapped for reading and writing. Made by `create` or `attach`.

    Attributes:
        fd: its descriptor, to send to another process; closed by `close`.
        memory: all of it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.memory = memoryview(self._map)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "MemoryFile":
        """Make a file full of zeros, whose memory is taken on first use. Raises OSError."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, nbytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> "MemoryFile":
        """Map a file whose descriptor has come from another process, and own the descriptor.

        Raises OSError, and has closed the descriptor then.
        """
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def empty(self) -> None:
        """Give its memory back to the system at once; every view of it, in any process, reads zeros from now on."""
        with contextlib.suppress(OSError):  # memory that is locked stays until the last view has gone
            self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Give it up. Views of its memory keep the memory, and nothing else does. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with contextlib.suppress(BufferError):  # there are views: the last one unmaps it
                self.memory.release()
                self._map.close()


class VersionHeader:
    """The numbers at the start of a version's memory file.

    Args:
        memory: of the file.
        front_ends: how many there are.
    """

    def __init__(self, memory: memoryview, front_ends: int) -> None:
        self._numbers = memory[:HEADER_BYTES].cast("q")
        self._front_ends = range(front_ends)
        self._egress = self._numbers[_FIRST_FRONT_END : _FIRST_FRONT_END + _STRIDE * front_ends]
        self._admission = self._numbers[_LEAST_SERVICE : _EXECUTED + 1]
        self._seen: tuple[list[int], Feasibility] = ([], Feasibility())  # numbers, and the value made of them

    def publish(self, feasibility: Feasibility) -> None:
        """Write what admission has to know. The engine process's."""
        numbers = self._numbers
        numbers[_LEAST_SERVICE] = feasibility.least_service_ns
        numbers[_EGRESS] = feasibility.egress_ns
        numbers[_EXECUTED] = feasibility.executed_ns

    def feasibility(self) -> Feasibility:
        """Return what the engine process has published. Read for every frame: the same object while nothing changes."""
        values = self._admission.tolist()
        seen, feasibility = self._seen
        if values != seen:
            feasibility = Feasibility(*values)
            self._seen = (values, feasibility)
        return feasibility

    def write_egress(
        self, front_end: int, mean_ns: int, upper_ns: int, interval_ns: int, reached_ns: int, reached_count: int
    ) -> None:
        """Write how long delivery takes in one front-end process, whose numbers these are; see `EgressTime`."""
        numbers, first = self._numbers, _FIRST_FRONT_END + _STRIDE * front_end
        numbers[first + _MEAN] = mean_ns
        numbers[first + _UPPER] = upper_ns
        numbers[first + _INTERVAL] = interval_ns
        numbers[first + _REACHED_COUNT] = reached_count
        numbers[first + _REACHED] = reached_ns

    def forget_egress(self, front_end: int) -> None:
        """Clear the numbers of a front-end process that has gone. The engine process's: no other writes them now."""
        self.write_egress(front_end, 0, 0, 0, 0, 0)

    def egress_bytes(self) -> bytes:
        """Return all of `egress` as it stands there, to see whether it has changed."""
        return self._egress.tobytes()

    def egress(self) -> list[tuple[int, int, int, int, int]]:
        """Return what each front-end process has written, in the order of `write_egress`."""
        numbers = self._numbers
        firsts = [_FIRST_FRONT_END + _STRIDE * front_end for front_end in self._front_ends]
        return [
            (
                numbers[first + _MEAN],
                numbers[first + _UPPER],
                numbers[first + _INTERVAL],
                numbers[first + _REACHED],
                numbers[first + _REACHED_COUNT],
            )
            for first in firsts
        ]

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._admission.release()
        self._egress.release()
        self._numbers.release()


class _Counts:
    """A number of each front-end process, for the others to see: one of the columns of a file that all share.

    Args:
        memory: of a file of `PermitCounts.BYTES` bytes.
        front_ends: how many there are.
    """

    BYTES: Final = PAGE_BYTES
    COLUMN = 0

    def __init__(self, memory: memoryview, front_ends: int) -> None:
        self._numbers = memory[: self.BYTES].cast("q")
        self._places = [_STRIDE * front_end + self.COLUMN for front_end in range(front_ends)]

    def write(self, front_end: int, count: int) -> None:
        """Write a number. Thread: any one of the front-end process, and the engine process once it has died."""
        self._numbers[self._places[front_end]] = count

    def read(self, front_end: int) -> int:
        """Return the number of one front-end process."""
        return self._numbers[self._places[front_end]]

    def total(self) -> int:
        """Return the sum of all."""
        return sum([self._numbers[place] for place in self._places])

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._numbers.release()


class PermitCounts(_Counts):
    """How many permits each front-end process has given out."""


class StreamCounts(_Counts):
    """How many streams are open in each front-end process."""

    COLUMN = 1


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
