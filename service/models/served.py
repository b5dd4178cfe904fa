"""The front end's view of the models: protocols that hold wherever the models are.

`ModelVersion` and `ModelRegistry` are these where the front end shares a process with the models; `service.group` has
those of a front-end process, whose models are in another one. `find_version` is the one way in which both look.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.errors import Outcome, UnknownModelError
from forebay_server.service.journal.events import RequestJournal
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.pictures.device_picture import DecodedBy, FilePlace
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import FrameBuffer, Request

MAX_NAME_SHOWN, MAX_VERSION_SHOWN = 128, 20


class ServedFeasibility(Protocol):
    """The speed of a version, for admission: `service.request.Feasibility`, or a view of another process's."""

    @property
    def least_service_ns(self) -> int:
        """The least that a lone request needs; 0 while nothing is known."""
        ...

    def is_hopeless(self, now_ns: int, deadline_ns: int | None, decode_ns: int) -> bool:
        """Whether a request that still needs `decode_ns` of decoding cannot meet its deadline even alone."""
        ...


class ServedEgress(Protocol):
    """Takes the durations of delivery. Thread: the event loop's."""

    def observe(self, readable_ns: int, left_ns: int, *, is_typical: bool = True) -> None:
        """See `service.batching.egress_time.EgressTime.observe`."""
        ...


class ServedFrames(Protocol):
    """Buffers for the inputs of one version. Thread: any."""

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of one row of each input."""
        ...

    def lease(self, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a buffer of one row. Raises OverloadedError."""
        ...

    def lease_rows(self, rows: int, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a buffer of `rows` rows. Raises OverloadedError or InvalidRequestError."""
        ...

    def files_of(self, frame: FrameBuffer) -> FilePlace | None:
        """Return where a leased buffer of one row has room for a JPEG file; None if its device decodes none."""
        ...

    def borrows(self, payload: memoryview) -> bool:
        """Whether dense inputs of one row stay where they are."""
        ...

    def borrow(self, payload: memoryview, share: Share | None = None) -> FrameBuffer | None:
        """Take a permit for dense inputs that stay where they are; None where a copy is needed.

        Raises OverloadedError.
        """
        ...


class ServedArrays(Protocol):
    """Takes the inputs of a version whose shapes vary. Thread: any."""

    def lease(self, arrays: "tuple[NDArray[Any] | None, ...]", share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and count the arrays. Raises OverloadedError or InvalidRequestError."""
        ...


class ServedCounts(Protocol):
    """Counts requests that end before they come to the former. Thread: any."""

    def refuse(self, outcome: Outcome, received_ns: int) -> None:
        """Count a request that was read at `received_ns` and ended since."""
        ...

    def count_picture(self, by: DecodedBy, count: int = 1) -> None:
        """Count JPEG files by who decodes them."""
        ...


class ServedVersion(Protocol):
    """One version of a model, as the front end sees it.

    Its methods and attributes are those of `service.models.version.ModelVersion`, for any thread unless it says
    otherwise there.
    """

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> str:
        """Decimal number."""
        ...

    @property
    def description(self) -> ModelDescription:
        """Completed."""
        ...

    @property
    def specs(self) -> EngineSpecs:
        """Inputs and outputs of the model."""
        ...

    @property
    def arena(self) -> ServedFrames:
        """Frame buffers."""
        ...

    @property
    def unbound(self) -> ServedArrays | None:
        """Set instead of frame buffers for a model whose shapes vary."""
        ...

    @property
    def statistics(self) -> ServedCounts:
        """Counts."""
        ...

    @property
    def requests(self) -> RequestJournal | None:
        """Receives how Open Inference requests end; None disables observation."""
        ...

    @property
    def feasibility(self) -> ServedFeasibility:
        """The latest."""
        ...

    @property
    def egress_time(self) -> ServedEgress:
        """Receives how long results take to leave."""
        ...

    def try_use(self) -> bool:
        """Keep the version open until `end_use`; False if it is being closed."""
        ...

    def end_use(self) -> None:
        """Release the version."""
        ...

    def arrive(self, request: Request) -> None:
        """Hand a request, inputs in its frame buffer, to the former. Blocks: no."""
        ...

    def arrive_on_loop(self, request: Request) -> None:
        """Hand a request over as `arrive` does. Thread: the event loop's. Blocks: no."""
        ...

    def cancel(self, requests: Sequence[Request]) -> None:
        """Give up requests that are still pending. Blocks: no."""
        ...


FindModel = Callable[[str, str], ServedVersion]
"""Name and version of a model to a version that is ready. Raises UnknownModelError."""


class ServedModels(Protocol):
    """The models that serve. Thread: any."""

    def find(self, name: str, version: str) -> ServedVersion:
        """Return a version that is ready; the newest one for an empty `version`. Raises UnknownModelError."""
        ...

    def acquire(self, name: str, version: str) -> ServedVersion:
        """Return a version that stays open until its `end_use`. Raises UnknownModelError."""
        ...

    def known_versions(self, name: str) -> frozenset[str] | None:
        """Return all versions of a model that serve, served or failed to load; None if there were none."""
        ...

    def versions(self) -> dict[str, list[str]]:
        """Return the versions that serve now, by model."""
        ...


class _Usable(Protocol):
    def try_use(self) -> bool: ...


V = TypeVar("V")
U = TypeVar("U", bound=_Usable)


def find_version(serving: Mapping[str, Mapping[str, V]], name: str, version: str) -> V:
    """Return what serves under a name and a version; the newest one for an empty `version`.

    Args:
        serving: by model, then by version.
        name: of the model.
        version: decimal number, or empty.

    Raises:
        UnknownModelError: there is none.
    """
    versions = serving.get(name)
    if not versions:
        known = ", ".join(sorted(serving)) or "none"
        raise UnknownModelError(f"no model {name[:MAX_NAME_SHOWN]!r} here; loaded are: {known}")
    if version:
        if version not in versions:
            known = ", ".join(versions)
            raise UnknownModelError(
                f"model {name!r} has no version {version[:MAX_VERSION_SHOWN]!r}; loaded are: {known}"
            )
        return versions[version]
    return versions[max(versions, key=int)]


def acquire_version(find: Callable[[str, str], U], name: str, version: str) -> U:
    """Return a version that stays open until its `end_use`. Raises UnknownModelError."""
    while True:
        found = find(name, version)
        if found.try_use():
            return found  # otherwise the version was retired meanwhile, and `find` returns its successor
