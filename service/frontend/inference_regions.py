"""Regions of shared memory that clients on this machine registered: who owns them, and every access to them.

A region belongs to the connection that registered it: another cannot name it, whatever it guesses, and it ends with its
connection. Every range is checked against the region before anything is read or written. What a region is made of is
the business of `service.frontend.inference_memory` (system) and `service.frontend.inference_cuda_memory`.

gRPC names connections by addresses that come again and does not say when one ends; `service.frontend.connections` finds
out. Clients of a unix socket cannot be told apart: they own what any of them registered, for as long as a connection
lives that was there when it was registered.

Owner: the event loop's thread.
"""

from dataclasses import dataclass, field
from typing import Protocol

import grpc

from service.frontend.connections import Connection, local_connections
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_form import RegionRange, WantedOutput
from service.frontend.messages import Bytes

MAX_REGIONS = 512  # of one connection: perf_analyzer has a few for each request in flight
MAX_ALL_REGIONS = 4096  # a descriptor each
MAX_NAME_CHARACTERS = 256
RESERVED_PREFIX = "triton_python_backend_shm_region_"


class Region(Protocol):
    """One region, open. Offsets count from its beginning; ranges given to it lie within `byte_size`."""

    @property
    def name(self) -> str:
        """As its owner calls it."""
        ...

    @property
    def byte_size(self) -> int:
        """Size in bytes."""
        ...

    def read(self, offset: int, nbytes: int) -> Bytes:
        """Return a copy of a range. Raises InferenceError."""
        ...

    def write(self, offset: int, data: Bytes) -> None:
        """Put bytes into the region. Raises InferenceError."""
        ...

    def close(self) -> None:
        """Let go of it. Called once."""
        ...


@dataclass(frozen=True, slots=True)
class RegionView:
    """A range that lies within its region."""

    region: Region
    offset: int
    byte_size: int

    def read(self) -> Bytes:
        """Return a copy of it. Raises InferenceError."""
        return self.region.read(self.offset, self.byte_size)


@dataclass(slots=True)
class _Owner:
    """The regions of one peer, by name, and the connections that it may be."""

    connections: frozenset[Connection] = frozenset()
    regions: dict[str, Region] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        return any(connection.is_open for connection in self.connections)

    def close(self) -> None:
        for region in self.regions.values():
            region.close()
        self.regions.clear()


class ClientRegions:
    """See the module. System and CUDA regions of one connection share their names, as with Triton.

    Args:
        is_enabled: whether clients may register at all.
    """

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._owners: dict[str, _Owner] = {}

    @property
    def open_count(self) -> int:
        """How many regions there are, of all connections."""
        return sum(len(owner.regions) for owner in self._owners.values())

    def check_new(self, name: str, byte_size: int, peer: str) -> None:
        """Raise InferenceError unless a connection may register a region of that name and size."""
        self.check_enabled()
        regions = self._present(peer).regions
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS or name.startswith(RESERVED_PREFIX):
            raise invalid(f"a region cannot be called '{name[:MAX_NAME_CHARACTERS]}'")
        if name in regions:
            raise InferenceError(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        if byte_size == 0:
            raise invalid(f"byte_size of shared memory region '{name}' must be at least 1")
        if len(regions) >= MAX_REGIONS:
            raise _too_many(f"this connection has {MAX_REGIONS} shared memory regions, its limit: unregister some")
        if self.open_count >= MAX_ALL_REGIONS:
            raise _too_many(f"the server has {MAX_ALL_REGIONS} shared memory regions, its limit: try again later")

    def add(self, region: Region, peer: str) -> None:
        """Keep an open region for its connection, which `check_new` has just let through."""
        self._owners[peer].regions[region.name] = region

    def all_of(self, kind: type[Region], peer: str) -> list[Region]:
        """Return a connection's regions of one kind."""
        self.check_enabled()
        return [region for region in self._regions_of(peer).values() if isinstance(region, kind)]

    def one_of(self, kind: type[Region], name: str, peer: str) -> Region:
        """Return a connection's region of one kind by its name. Raises InferenceError."""
        for region in self.all_of(kind, peer):
            if region.name == name:
                return region
        raise _unknown(name)

    def remove(self, kind: type[Region], name: str, peer: str) -> None:
        """Close one region of a kind, or all for an empty name. What is not there is no error, as clients expect."""
        for region in self.all_of(kind, peer):
            if name in ("", region.name):
                self._owners[peer].regions.pop(region.name).close()

    def close_orphans(self) -> None:
        """Close the regions whose connections have ended."""
        for peer in [peer for peer, owner in self._owners.items() if not owner.is_there]:
            self._owners.pop(peer).close()

    def locate(self, place: RegionRange, peer: str) -> RegionView:
        """Return a range of a connection's region, unread. Raises InferenceError."""
        self.check_enabled()
        region = self._regions_of(peer).get(place.region)
        if region is None:
            raise _unknown(place.region)
        if not 0 <= place.offset <= region.byte_size:
            raise invalid(f"Invalid offset for shared memory region: '{region.name}'")
        if place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise out_of_range(region.name)
        return RegionView(region, place.offset, place.byte_size)

    def write(self, wanted: WantedOutput, data: Bytes, peer: str) -> None:
        """Put an output into its range. Raises InferenceError."""
        if wanted.region is None:
            return
        view = self.locate(wanted.region, peer)
        if len(data) > view.byte_size:
            raise InferenceError(
                grpc.StatusCode.INTERNAL,
                f"shared memory size specified with the request for output '{wanted.face.name}' ({view.byte_size} "
                f"bytes) should be at least {len(data)} bytes to hold the results",
            )
        view.region.write(view.offset, data)

    def close(self) -> None:
        """Close every region. Idempotent."""
        for owner in self._owners.values():
            owner.close()
        self._owners.clear()

    def check_enabled(self) -> None:
        """Raise InferenceError unless the server was started with shared memory."""
        if not self._is_enabled:
            raise InferenceError(
                grpc.StatusCode.UNIMPLEMENTED,
                "Client shared memory is disabled. Start the server with '--allow-client-shm' to enable.",
            )

    def _regions_of(self, peer: str) -> dict[str, Region]:
        """Return what a peer owns: what another connection with its address has left is not its own."""
        owner = self._owners.get(peer)
        if owner is not None and not owner.is_there:
            self._owners.pop(peer).close()
            owner = None
        return {} if owner is None else owner.regions

    def _present(self, peer: str) -> _Owner:
        """Return the owner of what a peer registers now. Raises InferenceError if it is not on this machine."""
        self.close_orphans()
        connections = local_connections(peer)
        if not connections:
            raise InferenceError(
                grpc.StatusCode.PERMISSION_DENIED,
                "shared memory is for clients on the server's machine: connect to 127.0.0.1, [::1] or the unix socket",
            )
        owner = self._owners.setdefault(peer, _Owner())
        owner.connections = connections
        return owner


def _too_many(message: str) -> InferenceError:
    return InferenceError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def invalid(message: str) -> InferenceError:
    """Return an error of the request itself."""
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, message)


def out_of_range(name: str) -> InferenceError:
    """Return the error for a range that a region does not have."""
    return invalid(f"Invalid offset + byte size for shared memory region: '{name}'")


def _unknown(name: str) -> InferenceError:
    return InferenceError(
        grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name[:MAX_NAME_CHARACTERS]}'"
    )
