"""Regions of shared memory that clients on this machine registered: who owns them, and every access to them.

A region belongs to the connection that registered it: another cannot name it, whatever it guesses. Every range is
checked against the region before anything is read or written. What a region is made of is the business of
`service.frontend.inference_memory` (system) and `service.frontend.inference_cuda_memory`.

gRPC does not say when a connection ends. So regions are few, and the least recently used connection loses its regions
first when there are too many.

Owner: the event loop's thread.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import grpc

from service.frontend.inference_errors import InferenceError
from service.frontend.inference_form import RegionRange, WantedOutput
from service.frontend.inference_wire import Bytes

MAX_REGIONS = 512
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


class ClientRegions:
    """See the module. System and CUDA regions of one connection share their names, as with Triton.

    Args:
        is_enabled: whether clients may register at all.
    """

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._regions: OrderedDict[str, dict[str, Region]] = OrderedDict()  # by peer, least recently used first

    def check_new(self, name: str, byte_size: int, peer: str) -> None:
        """Raise InferenceError unless a connection may register a region of that name and size."""
        self.check_enabled()
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS or name.startswith(RESERVED_PREFIX):
            raise invalid(f"a region cannot be called '{name[:MAX_NAME_CHARACTERS]}'")
        if name in self._regions.get(peer, {}):
            raise InferenceError(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        if byte_size == 0:
            raise invalid(f"byte_size of shared memory region '{name}' must be at least 1")

    def add(self, region: Region, peer: str) -> None:
        """Keep an open region for its connection."""
        while sum(len(regions) for regions in self._regions.values()) >= MAX_REGIONS:
            _, regions = self._regions.popitem(last=False)
            for other in regions.values():
                other.close()
        self._regions.setdefault(peer, {})[region.name] = region
        self._regions.move_to_end(peer)

    def all_of(self, kind: type[Region], peer: str) -> list[Region]:
        """Return a connection's regions of one kind."""
        self.check_enabled()
        return [region for region in self._regions.get(peer, {}).values() if isinstance(region, kind)]

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
                self._regions[peer].pop(region.name).close()
        if not self._regions.get(peer, True):
            del self._regions[peer]

    def locate(self, place: RegionRange, peer: str) -> RegionView:
        """Return a range of a connection's region, unread. Raises InferenceError."""
        self.check_enabled()
        region = self._regions.get(peer, {}).get(place.region)
        if region is None:
            raise _unknown(place.region)
        self._regions.move_to_end(peer)
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
        for regions in self._regions.values():
            for region in regions.values():
                region.close()
        self._regions.clear()

    def check_enabled(self) -> None:
        """Raise InferenceError unless the server was started with shared memory."""
        if not self._is_enabled:
            raise InferenceError(
                grpc.StatusCode.UNIMPLEMENTED,
                "Client shared memory is disabled. Start the server with '--allow-client-shm' to enable.",
            )


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
