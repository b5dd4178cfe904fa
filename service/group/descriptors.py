"""Descriptors of frames that lie in shared memory, from front-end processes to the engine process and back.

Theory of operation
    A datagram goes one way over the data socket of one front-end process and holds up to MAX_RECORDS records of
    RECORD_BYTES bytes. To the engine process go requests, opened and closed streams, and cancels, in the order in which
    they happened. Back go answers of executed requests (a datagram of records, nothing else), and errors: a datagram
    that holds the error once and then a record for each request that ended with it. The first byte of a datagram or a
    record is its kind.

    Instants are nanoseconds of the machine's monotonic clock, which all processes share.

    The place of a request whose shapes vary is its input offset to its output offset. Its outputs come back at the
    start of the place or, if the answer names a page, in the outputs area, from where a record RETURN gives them back.

Pure: no socket, no clock. Records are plain tuples, because 15,000 a second pass here.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from forebay_server.service import errors
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.request import Delivery, Timeline

RECORD_BYTES: Final = 64
MAX_RECORDS: Final = 256
MAX_TEXT_BYTES: Final = 4 * errors.MAX_MESSAGE_CHARACTERS  # UTF-8
MAX_DATAGRAM_BYTES: Final = RECORD_BYTES * (MAX_RECORDS + 1) + -(-MAX_TEXT_BYTES // RECORD_BYTES) * RECORD_BYTES
"""Size of the largest datagram either way."""

REQUEST: Final = 1
OPEN_STREAM: Final = 2
CLOSE_STREAM: Final = 3
CANCEL: Final = 4
ANSWERS: Final = 5
ERRORS: Final = 6
RETURN: Final = 7
FILE: Final = 8
"""A request whose slot holds a file: its weight is the number of bytes, its queue timeout the size of the picture."""

IS_LATEST: Final = 2
IS_ORDERED: Final = 4

NONE: Final = -1
"""For a deadline or a queue timeout: there is none."""

LEAST_URGENT: Final = 2**16 - 1
NEVER_NS: Final = 2**63 - 1
"""The largest priority, and the largest deadline or queue timeout, of a record."""

MAX_NUMBER: Final = 2**32 - 1
"""Tokens, versions and streams are numbered up to it."""

# kind, flags, priority, token, version, stream, rows, weight, input and output offset, deadline, arrival, queue timeout
_RECORD: Final = struct.Struct("<BBHIIIIIQQqqq")
# kind, batch size, token, page of the outputs, formed, readable, h2d, execute, d2h, batch id
_ANSWER: Final = struct.Struct("<BxxxIIIqqqqqq")
# kind, class of the error, bytes of the text, retry after ms
_ERROR: Final = struct.Struct("<BBHIxxxxxxxx")

Record: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]
"""kind, flags, priority, token, version, stream, rows, weight, input_offset, output_offset, deadline_ns, arrival_ns,
queue_timeout_ns."""

Answer: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int]
"""kind, batch_size, token, page, formed_ns, readable_ns, h2d_ns, execute_ns, d2h_ns, batch_id. The page is that of the
outputs in the outputs area, 0 for those in their place. In a datagram of errors, batch_size is 0 and readable_ns the
time of the decision."""

_CLASSES: Final[tuple[type[ServiceError], ...]] = (
    errors.InvariantError,
    errors.InvalidRequestError,
    errors.OverloadedError,
    errors.QueueFullError,
    errors.SupersededError,
    errors.DeadlineExpiredError,
    errors.QueueTimeoutError,
    errors.RequestCancelledError,
    errors.BatchFailedError,
    errors.CorruptResultError,
    errors.UnknownModelError,
    errors.UnsupportedError,
    errors.NotReadyError,
    errors.DeviceLostError,
)
"""The errors of formers, lanes and engines. A subclass that is not here travels as its base."""


class RequestRecord(NamedTuple):
    """The fields of a request by name, for callers that are not on the way of every frame.

    Attributes:
        token: of the front-end process, for the answer and for a cancel; not used by another request until answered.
        version: number under which the version was published.
        stream: number of an open stream.
        rows: of the request.
        priority: 1 is the most urgent.
        input_offset: of its inputs in the memory file of the version.
        output_offset: of the place for its outputs there; where shapes vary, the end of its place.
        deadline_ns: instant or NONE.
        arrival_ns: instant.
        queue_timeout_ns: duration or NONE.
    """

    token: int
    version: int
    stream: int
    rows: int
    priority: int
    input_offset: int
    output_offset: int
    deadline_ns: int
    arrival_ns: int
    queue_timeout_ns: int = NONE


def pack_request(
    token: int,
    version: int,
    stream: int,
    rows: int,
    priority: int,
    input_offset: int,
    output_offset: int,
    deadline_ns: int,
    arrival_ns: int,
    queue_timeout_ns: int = NONE,
) -> bytes:
    """Return the record of a request; see RequestRecord.

    A priority, deadline or timeout of a client may be any number: one that no record holds becomes the largest that it
    holds.
    """
    try:
        return _RECORD.pack(
            REQUEST, 0, priority, token, version, stream, rows, 0, input_offset, output_offset,
            deadline_ns, arrival_ns, queue_timeout_ns,
        )  # fmt: skip
    except struct.error:
        return _RECORD.pack(
            REQUEST, 0, min(priority, LEAST_URGENT), token, version, stream, rows, 0, input_offset,
            output_offset, min(deadline_ns, NEVER_NS), arrival_ns, min(queue_timeout_ns, NEVER_NS),
        )  # fmt: skip


def pack_file(
    token: int,
    version: int,
    stream: int,
    priority: int,
    input_offset: int,
    output_offset: int,
    deadline_ns: int,
    arrival_ns: int,
    nbytes: int,
    size: tuple[int, int],
) -> bytes:
    """Return the record of a request of one row whose slot holds a file.

    Args:
        token: of the front-end process; see RequestRecord.
        version: number under which the version was published.
        stream: number of an open stream.
        priority: 1 is the most urgent.
        input_offset: of its slot in the memory file.
        output_offset: of the place for its outputs there.
        deadline_ns: instant or NONE.
        arrival_ns: instant.
        nbytes: of the file.
        size: (width, height) of its picture.
    """
    return _RECORD.pack(
        FILE, 0, min(priority, LEAST_URGENT), token, version, stream, 1, nbytes, input_offset, output_offset,
        min(deadline_ns, NEVER_NS), arrival_ns, size[0] << 16 | size[1],
    )  # fmt: skip


def file_of(record: Record) -> tuple[int, tuple[int, int]]:
    """Return the bytes of a FILE, and the size of its picture."""
    return record[7], (record[12] >> 16, record[12] & 0xFFFF)


def pack_open_stream(stream: int, delivery: Delivery, *, is_ordered: bool, weight: int) -> bytes:
    """Return the record of a new stream; the arguments are those of `StreamKey`."""
    flags = (IS_LATEST if delivery is Delivery.LATEST else 0) | (IS_ORDERED if is_ordered else 0)
    return _RECORD.pack(OPEN_STREAM, flags, 0, 0, 0, stream, 0, weight, 0, 0, NONE, 0, NONE)


def pack_close_stream(stream: int) -> bytes:
    """Return the record of a stream that brings no more requests; its number may be used again."""
    return _RECORD.pack(CLOSE_STREAM, 0, 0, 0, 0, stream, 0, 0, 0, 0, NONE, 0, NONE)


def pack_cancel(token: int) -> bytes:
    """Return the record of a request that its client gave up. It is answered all the same."""
    return _RECORD.pack(CANCEL, 0, 0, token, 0, 0, 0, 0, 0, 0, NONE, 0, NONE)


def pack_return(version: int, offset: int) -> bytes:
    """Return the record of a part of the outputs area, by its offset in the file, that was read."""
    return _RECORD.pack(RETURN, 0, 0, 0, version, 0, 0, 0, offset, 0, NONE, 0, NONE)


def datagrams(records: Sequence[bytes]) -> Iterator[bytes]:
    """Join records to as few datagrams as hold them, in order."""
    for start in range(0, len(records), MAX_RECORDS):
        yield b"".join(records[start : start + MAX_RECORDS])


def can_join(first: bytes, second: bytes) -> bool:
    """Whether two datagrams, one behind the other, are one as well: records alone, and not too many."""
    is_plain = first[0] != ERRORS != second[0]
    return is_plain and len(first) + len(second) <= MAX_RECORDS * RECORD_BYTES


def unpack(datagram: bytes | memoryview) -> Iterator[Record]:
    """Return the records of a datagram to the engine process. Raises ValueError if it is cut."""
    try:
        return _RECORD.iter_unpack(datagram)
    except struct.error:
        raise ValueError(f"{len(datagram)} bytes are no whole number of records") from None


def fields(record: Record) -> RequestRecord:
    """Return the fields of a request by name."""
    (
        _,
        _,
        priority,
        token,
        version,
        stream,
        rows,
        _,
        input_offset,
        output_offset,
        deadline,
        arrival,
        timeout,
    ) = record
    return RequestRecord(
        token, version, stream, rows, priority, input_offset, output_offset, deadline, arrival, timeout,
    )  # fmt: skip


def pack_answer(token: int, batch_size: int, timeline: Timeline, outputs_offset: int = 0) -> bytes:
    """Return the record of a request that has ended, executed or not.

    Args:
        token: of the request.
        batch_size: of its batch; 0: it was not executed.
        timeline: of the request.
        outputs_offset: of its outputs in the outputs area, a multiple of a page; 0: they are in their place.
    """
    return _ANSWER.pack(
        ANSWERS, batch_size, token, outputs_offset // PAGE_BYTES,
        timeline.formed_ns, timeline.readable_ns or timeline.built_ns, timeline.h2d_ns,
        timeline.execute_ns, timeline.d2h_ns, timeline.batch_id,
    )  # fmt: skip


def pack_error(error: ServiceError) -> bytes:
    """Return the head of a datagram of errors: the error once, as its client will see it. Records follow."""
    text = error.message.encode(errors="replace")
    padding = -(_ERROR.size + len(text)) % RECORD_BYTES
    return _ERROR.pack(ERRORS, _number_of(type(error)), len(text), error.retry_after_ms) + text + bytes(padding)


def error_datagrams(error: ServiceError, records: Sequence[bytes]) -> Iterator[bytes]:
    """Join the records of requests that ended with `error` to as few datagrams as hold them."""
    head = pack_error(error)
    for start in range(0, len(records), MAX_RECORDS):
        yield head + b"".join(records[start : start + MAX_RECORDS])


def unpack_answers(datagram: bytes | memoryview) -> tuple[ServiceError | None, Iterator[Answer]]:
    """Return the error that the requests of a datagram to a front-end process ended with, if any, and their records.

    Raises ValueError if it is cut.
    """
    if not datagram or len(datagram) % RECORD_BYTES:
        raise ValueError(f"{len(datagram)} bytes are no datagram of answers")
    error, start = None, 0
    if datagram[0] == ERRORS:
        _, number, text_bytes, retry_after_ms = _ERROR.unpack_from(datagram)
        text = str(datagram[_ERROR.size : _ERROR.size + text_bytes], "utf-8", "replace")
        error = _error(number, text, retry_after_ms)
        start = -(-(_ERROR.size + text_bytes) // RECORD_BYTES) * RECORD_BYTES
    return error, _ANSWER.iter_unpack(datagram[start:])


def stamp(timeline: Timeline, answer: Answer) -> None:
    """Stamp a timeline with the times of its answer.

    The engine process may end a request by a reading of the clock from before the request was sent: a step of the
    former reads the clock, then takes what has come meanwhile. No stage lasts less than nothing, so it ends then.
    """
    (
        _, _, _, _, timeline.formed_ns, readable_ns, timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns,
        timeline.batch_id,
    ) = answer  # fmt: skip
    timeline.readable_ns = max(readable_ns, timeline.admitted_ns)


def _number_of(kind: type[ServiceError]) -> int:
    for base in kind.__mro__:
        if base in _CLASSES:
            return _CLASSES.index(base)
    return 0


def _error(number: int, text: str, retry_after_ms: int) -> ServiceError:
    if not 0 < number < len(_CLASSES):
        return InvariantError("an error in the engine process; the log has it")
    return _CLASSES[number](text, retry_after_ms=retry_after_ms)
