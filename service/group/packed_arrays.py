"""Arrays of any shapes in shared memory: a head of 64-bit integers, then the elements of each array.

    head: number of arrays, then for each: number of dimensions (or LEFT_OUT), dimensions, bytes of its data
    data: of each array, from the next multiple of ALIGNMENT_BYTES

Types are not written: both sides know the model's. Strings (arrays of Python's `str`) are their lengths in UTF-8, four
bytes each, and then all their letters.

Pure: no state, no file. Thread: any.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.group.memory_layout import ALIGNMENT_BYTES

LEFT_OUT: Final = -1
_WORD: Final = 8
_LENGTH: Final = np.dtype(np.uint32)
_OBJECT: Final = np.dtype(object)

Arrays = Sequence[NDArray[Any] | None]


class PackedArrays(NamedTuple):
    """Arrays that are ready to be written.

    Attributes:
        head: the integers.
        data: of each array that is not left out: itself, or the lengths and letters of strings.
        offsets: of each in the memory.
        nbytes: of all together.
    """

    head: list[int]
    data: list[NDArray[Any] | bytes]
    offsets: list[int]
    nbytes: int

    def write(self, memory: memoryview) -> None:
        """Write to the start of `memory`, which has at least `nbytes` bytes and none of the arrays."""
        memory[: _WORD * len(self.head)] = np.array(self.head, np.int64).tobytes()
        for data, offset in zip(self.data, self.offsets, strict=True):
            if isinstance(data, bytes):
                memory[offset : offset + len(data)] = data
            elif data.size:
                target = np.frombuffer(memory[offset : offset + data.nbytes], data.dtype)
                np.copyto(target.reshape(data.shape), data)


def pack(arrays: Arrays, dtypes: Sequence[np.dtype[Any]]) -> PackedArrays:
    """Return arrays ready to be written, each as its type; strings are joined now, numbers are not copied."""
    head: list[int] = [len(arrays)]
    data: list[NDArray[Any] | bytes] = []
    for array, dtype in zip(arrays, dtypes, strict=True):
        if array is None:
            head.append(LEFT_OUT)
            continue
        part = _joined(array) if dtype == _OBJECT else array.astype(dtype, copy=False)
        head += (array.ndim, *array.shape, len(part) if isinstance(part, bytes) else part.nbytes)
        data.append(part)
    sizes = [len(part) if isinstance(part, bytes) else part.nbytes for part in data]
    ends = list(accumulate((_aligned(nbytes) for nbytes in sizes), initial=_aligned(_WORD * len(head))))
    return PackedArrays(head, data, ends[:-1], ends[-1])


def shapes_in(memory: memoryview) -> list[tuple[int, ...] | None]:
    """Return the shapes of packed arrays; None for one that is left out. Raises ValueError."""
    return [shape for shape, _, _ in _places(memory)]


def bytes_in(memory: memoryview) -> int:
    """Return about how many bytes the data of packed arrays have. Raises ValueError."""
    return sum(nbytes for _, _, nbytes in _places(memory))


def unpack(memory: memoryview, dtypes: Sequence[np.dtype[Any]]) -> tuple[NDArray[Any] | None, ...]:
    """Return packed arrays, read-only: numbers as views of `memory`, strings as copies. Raises ValueError."""
    places = _places(memory)
    if len(places) != len(dtypes):
        raise ValueError(f"{len(places)} arrays where the model has {len(dtypes)}")
    return tuple(
        None if shape is None else _unpacked(memory[offset : offset + nbytes], dtype, shape)
        for (shape, offset, nbytes), dtype in zip(places, dtypes, strict=True)
    )


def _places(memory: memoryview) -> list[tuple[tuple[int, ...] | None, int, int]]:
    """Return shape, offset and size of the data of each array."""
    words = memory[: len(memory) - len(memory) % _WORD].cast("q")
    try:
        found: list[tuple[tuple[int, ...] | None, int]] = []
        at = 1
        for _ in range(words[0]):
            dimensions = words[at]
            if dimensions == LEFT_OUT:
                found.append((None, 0))
                at += 1
                continue
            shape, nbytes = tuple(words[at + 1 : at + 1 + dimensions].tolist()), words[at + 1 + dimensions]
            if min(dimensions, nbytes, *shape) < 0:
                raise ValueError("the head of packed arrays has a size below zero")
            found.append((shape, nbytes))
            at += dimensions + 2
    except IndexError:
        raise ValueError("the head of packed arrays is cut") from None
    ends = list(accumulate((_aligned(nbytes) for _, nbytes in found), initial=_aligned(_WORD * at)))
    return [(shape, start, nbytes) for (shape, nbytes), start in zip(found, ends[:-1], strict=True)]


def _unpacked(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype == _OBJECT:
        return _strings(data, shape)
    array = np.frombuffer(data.toreadonly(), dtype)
    return array.reshape(shape)


def _joined(array: NDArray[Any]) -> bytes:
    strings = [value.encode() for value in array.reshape(-1).tolist()]
    return np.fromiter(map(len, strings), _LENGTH, len(strings)).tobytes() + b"".join(strings)


def _strings(data: memoryview, shape: tuple[int, ...]) -> NDArray[np.object_]:
    count = 1
    for each in shape:
        count *= each
    lengths = np.frombuffer(data[: _LENGTH.itemsize * count], _LENGTH).tolist()
    letters = bytes(data[_LENGTH.itemsize * count :])
    ends = list(accumulate(lengths, initial=0))
    array = np.empty(count, object)
    array[:] = [letters[start:end].decode() for start, end in pairwise(ends)]
    return array.reshape(shape)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
