"""The messages between a front-end process and the engine process, frames and answers aside (`descriptors`).

Messages are values, pickled by `talk`: both ends are processes of one server. In the order of a link's life:

    engine process                      front-end process
    Welcome, Published ..., Serving     Hello
    Published, Retired, Known, Health   Unused
    RpcAnswer                           RpcCall
    LogLevel, LookAt                    Told
    CountsWanted                        Counted
    StreamsWanted                       StreamsListed
    MoveStreams, LoadNow

Where there are several engine processes, the first one and each other one:

    first engine process                other engine process
    RpcCall                             RpcAnswer
    CountsWanted                        Counted
    Calls, LogLevel                     Calls, EngineTold
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forebay_server.engines.device import DeviceMemory
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.group.memory_layout import MemoryLayout
from forebay_server.service.journal.events import BatchEvent, Ending, Origin
from forebay_server.service.journal.pictures import Snapshot
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.reception import ReceptionNumbers
from forebay_server.service.journal.statistics import Counts, Successes
from forebay_server.service.journal.streams import StreamNumbers, Why
from forebay_server.service.load.choice import Weight
from forebay_server.service.load.listing import Listing
from forebay_server.service.load.meter import Load
from forebay_server.service.load.moving import FrameTotals
from forebay_server.service.load.overload import Wish
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.observe.gauges import VersionGauges


@dataclass(frozen=True, slots=True)
class Hello:
    """The front-end process runs. First message of its side."""

    pid: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """First message of the engine process. Comes with the descriptor of the file of the group's permits.

    Attributes:
        first_uid: streams of this process are numbered from here on.
        log_level: lowest level that is logged now.
    """

    first_uid: int
    log_level: str


@dataclass(frozen=True, slots=True)
class Published:
    """A model version serves. Comes with the descriptor of its memory file.

    The front-end process uses it until it says `Unused`.

    Attributes:
        number: of the version in descriptors, never used again.
        name: of the model.
        version: decimal number.
        description: completed.
        layout: of its memory file.
    """

    number: int
    name: str
    version: str
    description: ModelDescription
    layout: MemoryLayout

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model."""
        assert self.description.specs is not None  # noqa: S101 - for mypy: completed descriptions have them
        return self.description.specs


@dataclass(frozen=True, slots=True)
class Retired:
    """A version takes no new users; its streams are asked to reconnect."""

    number: int


@dataclass(frozen=True, slots=True)
class Unused:
    """The front-end process uses a retired version no more, and sends no request for it."""

    number: int


@dataclass(frozen=True, slots=True)
class Known:
    """The versions of each model that serve, served or failed to load."""

    versions: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a model serves; the empty name stands for the server."""

    name: str
    is_serving: bool


@dataclass(frozen=True, slots=True)
class Serving:
    """Every version that serves from the start was published: listen."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """The lowest level that is logged has changed."""

    level: str


@dataclass(frozen=True, slots=True)
class LookAt:
    """A reader of the live page looks at a stream, or does so no more.

    Attributes:
        uid: of the stream.
        is_wanted: whether its next frame is to be kept.
        is_looked_at: whether the kept frame is still wanted.
    """

    uid: int
    is_wanted: bool
    is_looked_at: bool


@dataclass(frozen=True, slots=True)
class MoveStreams:
    """Ask some streams to reconnect.

    Attributes:
        wish: how many, and which. None of them: others are asked.
        why: UNEVEN for those that go to the front-end processes with fewer streams; else to other servers.
    """

    wish: Wish
    why: Why


@dataclass(frozen=True, slots=True)
class LoadNow:
    """The load of the group."""

    load: Load


@dataclass(frozen=True, slots=True)
class CountsWanted:
    """Send the counts now, and then `Counted`: a client is about to get those of the whole group."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts were sent: the answer to one `CountsWanted`, in order."""


@dataclass(frozen=True, slots=True)
class StreamsWanted:
    """Send the list of open streams: an operator asks for it, or has some of them moved."""


@dataclass(frozen=True, slots=True)
class StreamsListed:
    """The open streams of this process: the answer to one `StreamsWanted`, in order."""

    listing: Listing


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A call that concerns the whole group.

    Attributes:
        id: of the call, in its front-end process.
        method: of inference.GRPCInferenceService.
        request: the message's bytes.
    """

    id: int
    method: str
    request: bytes


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    """The answer to an `RpcCall`.

    Attributes:
        id: of the call.
        code: name of a gRPC status code; `OK` with a response.
        details: of any other status.
        response: the message's bytes.
    """

    id: int
    code: str
    details: str = ""
    response: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream that was opened: the fields of `service.journal.events.StreamRecord`."""

    uid: int
    name: str
    model: str
    version: str
    protocol: str
    trace: Mapping[str, str] | None
    has_picture: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Refusals:
    """Requests of a version that failed with one outcome.

    Attributes:
        number: of the version.
        outcome: value of `service.errors.Outcome`.
        count: how many.
        total_ns: sum of their durations.
    """

    number: int
    outcome: str
    count: int
    total_ns: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Requests of a version that were answered with outputs, or with a typed result of them.

    Attributes:
        number: of the version.
        successes: how many, and their durations.
    """

    number: int
    successes: Successes


@dataclass(frozen=True, slots=True)
class PictureCounts:
    """JPEG files of a version, by who decoded them.

    Attributes:
        number: of the version.
        counts: by value of `DecodedBy`.
    """

    number: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Told:
    """News of a front-end process since the last message of this kind.

    Attributes:
        opened: streams, oldest first.
        rows: frames that ended, as `service.observe.frames.read_events` makes columns of them, int64 in C order;
            empty where `events` has them.
        events: the same as FrameEvents with uids for records, where spans are made of them.
        closed: uids of streams, the outcomes of their frames by value, and how they ended.
        refusals: counts by version and outcome.
        pictures: frames that a reader looks at, by uid of the stream.
        numbers: of the process, now.
        finished: counts by version.
        decoded: counts by version.
    """

    opened: tuple[StreamFacts, ...] = ()
    rows: bytes = b""
    events: tuple[tuple[int, Any], ...] = ()
    closed: tuple[tuple[int, Mapping[str, int], Ending], ...] = ()
    refusals: tuple[Refusals, ...] = ()
    pictures: tuple[tuple[int, Snapshot], ...] = ()
    numbers: "FrontEndNumbers | None" = None
    finished: tuple[Finished, ...] = ()
    decoded: tuple[PictureCounts, ...] = ()


@dataclass(frozen=True, slots=True)
class FrontEndNumbers:
    """Current numbers of a front-end process, for gauges.

    Attributes:
        movable_streams: those that can be asked to go to another process; None: it does not listen yet.
        streams: numbers of streams.
        process: the process itself; None for the counts of those that have ended.
        frames: totals of frames.
        weights: of the streams that can go to other servers, the heaviest first.
        leaving_streams: those that were asked to go to another process and are still here.
    """

    reception: ReceptionNumbers = field(default_factory=ReceptionNumbers)
    worker_threads: int = 0
    workers_busy: int = 0
    worker_jobs_waiting: int = 0
    log_lines_dropped: int = 0
    movable_streams: int | None = None
    streams: StreamNumbers = field(default_factory=StreamNumbers)
    process: ProcessNumbers | None = None
    frames: FrameTotals = field(default_factory=FrameTotals)
    weights: tuple[Weight, ...] = ()
    leaving_streams: int = 0


@dataclass(frozen=True, slots=True)
class Calls:
    """The latest load or unload of each model, in order: one that has just started repeats them."""

    calls: tuple[RpcCall, ...]


@dataclass(frozen=True, slots=True)
class CountsChange:
    """The counts of a version in an engine process since its last message.

    Attributes:
        model: name.
        version: decimal number.
        counts: since then.
    """

    model: str
    version: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class EngineNumbers:
    """Current numbers of an engine process that is not the first, for gauges.

    Attributes:
        versions: that it serves.
        waiting: requests that are not executed yet, by model and version.
        devices: memory use by name.
        process: the process itself.
    """

    versions: tuple[VersionGauges, ...]
    waiting: Mapping[tuple[str, str], int]
    devices: Mapping[str, DeviceMemory]
    process: ProcessNumbers


@dataclass(frozen=True, slots=True)
class EngineTold:
    """News of an engine process since the last message of this kind.

    Attributes:
        changes: of the counts of its versions.
        batches: that were executed, oldest first; empty without an observer.
        numbers: of the process, now.
    """

    changes: tuple[CountsChange, ...]
    batches: tuple[BatchEvent, ...]
    numbers: EngineNumbers
