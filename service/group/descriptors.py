"""Descriptors of frames that lie in shared memory, from front-end processes to the engine process and back.

Theory of operation
    A datagram goes one way over the data socket of one front-end process and holds up to MAX_RECORDS records of
    RECORD_BYTES bytes. To the engine process go requests, opened and closed streams, and cancels, in the order in which
    they happened. Back go answers of executed requests (a datagram of records, nothing else), and errors: a datagram
    that holds the error once and then a record for each request that ended with it. The first byte of a datagram or a
    record is its kind.

    Instants are nanoseconds of the machine's monotonic clock, which all processes share.

    A request whose inputs are in no fixed place (a model with varying shapes) brings a file: the descriptor of a memory
    file travels with the datagram, in the order of the records that have the flag HAS_FILE. `nbytes` is then the length
    of the batch key at the start of the file; the inputs follow, pickled. The outputs come back in the same file,
    pickled, from its start.

Pure: no socket, no clock. Records are plain tuples, because 15,000 a second pass here.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from forebay_server.service import errors
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.request import Delivery, Timeline

RECORD_BYTES: Final = 64
MAX_RECORDS: Final = 256
MAX_TEXT_BYTES: Final = 4 * errors.MAX_MESSAGE_CHARACTERS  # UTF-8
MAX_DATAGRAM_BYTES: Final = RECORD_BYTES * (MAX_RECORDS + 1) + -(-MAX_TEXT_BYTES // RECORD_BYTES) * RECORD_BYTES
"""Size of the largest datagram either way."""
MAX_FILES: Final = 128
"""File descriptors of one datagram at most; the kernel takes 253."""

REQUEST: Final = 1
OPEN_STREAM: Final = 2
CLOSE_STREAM: Final = 3
CANCEL: Final = 4
ANSWERS: Final = 5
ERRORS: Final = 6

HAS_FILE: Final = 1
IS_LATEST: Final = 2
IS_ORDERED: Final = 4

NONE: Final = -1
"""For a deadline or a queue timeout: there is none."""

LEAST_URGENT: Final = 2**16 - 1
NEVER_NS: Final = 2**63 - 1
"""The largest priority, and the largest deadline or queue timeout, of a record."""

MAX_NUMBER: Final = 2**32 - 1
"""Tokens, versions and streams are numbered up to it."""

# kind, flags, priority, token, version, stream, rows, nbytes, input and output offset, deadline, arrival, queue timeout
_RECORD: Final = struct.Struct("<BBHIIIIIQQqqq")
# kind, batch size, token, formed, readable, h2d, execute, d2h, batch id
_ANSWER: Final = struct.Struct("<BxxxIIxxxxqqqqqq")
# kind, class of the error, bytes of the text, retry after ms
_ERROR: Final = struct.Struct("<BBHIxxxxxxxx")

Record: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]
"""kind, flags, priority, token, version, stream, rows, nbytes, input_offset, output_offset, deadline_ns, arrival_ns,
queue_timeout_ns. OPEN_STREAM has `weight` in the place of nbytes."""

Answer: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
"""kind, batch_size, token, formed_ns, readable_ns, h2d_ns, execute_ns, d2h_ns, batch_id. In a datagram of errors,
batch_size is 0 and readable_ns the time of the decision."""

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
        input_offset: of its inputs in the memory file of the version; 0 for a request with a file.
        output_offset: of the place for its outputs there.
        deadline_ns: instant or NONE.
        arrival_ns: instant.
        queue_timeout_ns: duration or NONE.
        nbytes: see HAS_FILE; 0 without a file.
        has_file: whether a memory file travels with it.
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
    nbytes: int = 0
    has_file: bool = False


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
    nbytes: int = 0,
    has_file: bool = False,  # noqa: FBT001, FBT002 - called by position, for every frame
) -> bytes:
    """Return the record of a request; see RequestRecord.

    A priority, deadline or timeout of a client may be any number: one that no record holds becomes the largest that it
    holds.
    """
    flags = HAS_FILE if has_file else 0
    try:
        return _RECORD.pack(
            REQUEST, flags, priority, token, version, stream, rows, nbytes, input_offset,
            output_offset, deadline_ns, arrival_ns, queue_timeout_ns,
        )  # fmt: skip
    except struct.error:
        return _RECORD.pack(
            REQUEST, flags, min(priority, LEAST_URGENT), token, version, stream, rows, nbytes, input_offset,
            output_offset, min(deadline_ns, NEVER_NS), arrival_ns, min(queue_timeout_ns, NEVER_NS),
        )  # fmt: skip


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
        flags,
        priority,
        token,
        version,
        stream,
        rows,
        nbytes,
        input_offset,
        output_offset,
        deadline,
        arrival,
        timeout,
    ) = record
    return RequestRecord(
        token, version, stream, rows, priority, input_offset, output_offset, deadline, arrival, timeout, nbytes,
        bool(flags & HAS_FILE),
    )  # fmt: skip


def pack_answer(token: int, batch_size: int, timeline: Timeline) -> bytes:
    """Return the record of a request that has ended, executed or not."""
    return _ANSWER.pack(
        ANSWERS, batch_size, token, timeline.formed_ns, timeline.readable_ns or timeline.built_ns, timeline.h2d_ns,
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
    """Stamp a timeline with the times of its answer."""
    (
        _, _, _, timeline.formed_ns, timeline.readable_ns, timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns,
        timeline.batch_id,
    ) = answer  # fmt: skip


def _number_of(kind: type[ServiceError]) -> int:
    for base in kind.__mro__:
        if base in _CLASSES:
            return _CLASSES.index(base)
    return 0


def _error(number: int, text: str, retry_after_ms: int) -> ServiceError:
    if not 0 < number < len(_CLASSES):
        return InvariantError("an error in the engine process; the log has it")
    return _CLASSES[number](text, retry_after_ms=retry_after_ms)
