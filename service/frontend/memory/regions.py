"""Regions of shared memory that clients on this machine registered: their owners, and every access to them.

A region belongs to the user that registered it. Every connection of that user can use and unregister the region; no
other user can name it, even by guessing. The region ends when it is unregistered, or with the last connection of its
user that had to do with shared memory; requests that use it are answered first. Every range is checked against the
region before it is read or written. The kinds of memory are in `service.frontend.memory.system` (system) and
`service.frontend.memory.cuda`; `service.frontend.memory.askers` identifies the asking user.

Owner: the event loop's thread. Why: docs/adr/0092.
"""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc

from forebay_server.service.frontend.memory.askers import Asker, Askers, Users
from forebay_server.service.frontend.memory.errors import (
    disabled,
    invalid,
    no_descriptor,
    out_of_range,
    too_many,
    unknown,
)
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.region_range import RegionRange

MAX_REGIONS = 512  # of one connection: perf_analyzer has a few for each request in flight
MAX_USER_REGIONS = 2048
MAX_ALL_REGIONS = 4096  # a descriptor each
DESCRIPTORS_SHARE = 4  # regions may take a fourth of the descriptors that the process may open
MAX_NAME_CHARACTERS = 256
SEVERAL_USERS = "; several users are at the unix socket: they have only what all of them may open"


class Region(Protocol):
    """One region, open. Offsets count from its beginning; ranges given to it are within `byte_size`."""

    @property
    def name(self) -> str:
        """The owner's name for it."""
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
        """Release it. Called once."""
        ...


@dataclass(slots=True, eq=False)
class _Registration:
    """A region in the register.

    Attributes:
        region: open until `close`.
        users: possible registrants, by uid: usually one.
        registrar: the peer that counts it.
        uses: requests that hold it.
        is_leaving: unregistered while it is in use: it stays usable until the last request has ended.
    """

    region: Region
    users: Users
    registrar: Asker
    uses: int = 0
    is_leaving: bool = False


class NewRegion(NamedTuple):
    """Permission to open a region: its possible owners at this moment, and the peer that counts it."""

    users: Users
    registrar: Asker


class RegionView:
    """A range inside its region, which stays open until `release`."""

    __slots__ = ("_entry", "_regions", "byte_size", "offset")

    def __init__(self, regions: "ClientRegions", entry: _Registration, offset: int, byte_size: int) -> None:
        entry.uses += 1
        self._regions = regions
        self._entry = entry
        self.offset = offset
        self.byte_size = byte_size

    def read(self) -> Bytes:
        """Return a copy of it. Raises InferenceError."""
        return self._entry.region.read(self.offset, self.byte_size)

    def write(self, data: Bytes, output: str) -> None:
        """Put an output into it, by name. Raises InferenceError."""
        if len(data) > self.byte_size:
            raise InferenceError(
                grpc.StatusCode.INTERNAL,
                f"shared memory size specified with the request for output '{output}' ({self.byte_size} bytes) should "
                f"be at least {len(data)} bytes to hold the results",
            )
        self._entry.region.write(self.offset, data)

    def release(self) -> None:
        """End the request's use. Called once."""
        self._entry.uses -= 1
        self._regions.close_unused(self._entry)


class ClientRegions:
    """See the module. System and CUDA regions of one user share their names, as with Triton.

    Args:
        is_enabled: whether clients may register at all.
    """

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._askers = Askers()
        self._entries: dict[str, list[_Registration]] = {}  # by name
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = MAX_ALL_REGIONS
        if soft_limit != resource.RLIM_INFINITY:
            self._most = max(1, min(MAX_ALL_REGIONS, soft_limit // DESCRIPTORS_SHARE))

    @property
    def open_count(self) -> int:
        """Number of open regions, of all users."""
        return sum(map(len, self._entries.values()))

    def check_new(self, name: str, peer: str) -> NewRegion:
        """Return the owners that a new region of that name would have. Raises InferenceError if it is not allowed."""
        if not self._is_enabled:
            raise disabled()
        asker = self._present(peer)
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise invalid(f"a region cannot be called '{name[:MAX_NAME_CHARACTERS]}'")
        if any(entry.users & asker.users for entry in self._entries.get(name, ())):
            raise InferenceError(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        self._check_room(asker)
        return NewRegion(asker.users, asker)

    def add(self, region: Region, new: NewRegion) -> None:
        """Keep an open region that `check_new` has just allowed."""
        new.registrar.region_count += 1
        self._entries.setdefault(region.name, []).append(_Registration(region, new.users, new.registrar))

    def all_of(self, kind: type[Region], peer: str) -> list[Region]:
        """Return the regions of one kind that a peer may see."""
        return [entry.region for entry in self._visible(peer) if isinstance(entry.region, kind)]

    def remove(self, kind: type[Region], name: str, peer: str) -> None:
        """Unregister one region of a kind, or all for an empty name. A missing one is no error: clients expect it.

        A region that requests use is closed when the last of them has ended.
        """
        if not self._is_enabled:
            raise disabled()
        for entry in self._visible(peer):
            if isinstance(entry.region, kind) and name in ("", entry.region.name):
                self._leave(entry)

    def close_orphans(self) -> None:
        """Close the regions whose users have gone."""
        try:
            users = self._askers.present()
        except OSError:  # no descriptor is left for the scan: the next one may succeed
            return
        for entry in self._all():
            if not entry.users & users:
                self._leave(entry)

    def reach(self, peer: str) -> "Reach":
        """Return a function that finds the ranges of one request."""
        return Reach(self, peer)

    def users_of(self, peer: str) -> Users:
        """Return the possible askers. Raises InferenceError."""
        if not self._is_enabled:
            raise disabled()
        return self._asker(peer).users

    def locate(self, place: RegionRange, users: Users) -> RegionView:
        """Return a range of a region, unread and in use until its `release`. Raises InferenceError."""
        found = _visible(self._entries.get(place.region, ()), users)
        if not found:
            several = len(users) > 1
            raise unknown("", place.region, SEVERAL_USERS if several else "")
        region = found[0].region
        if not 0 <= place.offset < region.byte_size:
            raise invalid(f"Invalid offset for shared memory region: '{region.name}'")
        if place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise out_of_range(region.name)
        return RegionView(self, found[0], place.offset, place.byte_size)

    def close_unused(self, entry: _Registration) -> None:
        """Close a region that is leaving and that no request uses any more. For `RegionView`."""
        if not entry.is_leaving or entry.uses:
            return
        same_name = self._entries.get(entry.region.name, [])
        if entry in same_name:  # otherwise every region was closed
            same_name.remove(entry)
            if not same_name:
                del self._entries[entry.region.name]
            entry.registrar.region_count -= 1
            entry.region.close()

    def close(self) -> None:
        """Close every region, used or not. Idempotent."""
        entries = self._all()
        self._entries.clear()
        for entry in entries:
            entry.region.close()

    def _leave(self, entry: _Registration) -> None:
        entry.is_leaving = True
        self.close_unused(entry)

    def _all(self) -> list[_Registration]:
        return [entry for entries in self._entries.values() for entry in entries]

    def _visible(self, peer: str) -> list[_Registration]:
        """Return the regions that every possible asker has a right to."""
        return _visible(self._all(), self._asker(peer).users) if self._entries else []

    def _present(self, peer: str) -> Asker:
        """Return the present asker. Raises InferenceError if it is not a user of this machine."""
        self.close_orphans()
        asker = self._asker(peer)
        if not asker.users:
            raise InferenceError(
                grpc.StatusCode.PERMISSION_DENIED,
                "shared memory is for clients on the server's machine: connect to 127.0.0.1, [::1] or the unix socket",
            )
        return asker

    def _asker(self, peer: str) -> Asker:
        try:
            return self._askers.get(peer)
        except OSError:
            raise no_descriptor() from None

    def _check_room(self, asker: Asker) -> None:
        of_user = sum(1 for entry in self._all() if entry.users & asker.users)
        for count, most, whose in (
            (asker.region_count, MAX_REGIONS, "this connection has"),
            (of_user, MAX_USER_REGIONS, "this user has"),
            (self.open_count, self._most, "the server has"),
        ):
            if count >= most:
                raise too_many(f"{whose} {most} shared memory regions, its limit: unregister some")


class Reach:
    """Finds ranges for one request. The asker is identified once, and only if the request has ranges."""

    __slots__ = ("_peer", "_regions", "_users")

    def __init__(self, regions: ClientRegions, peer: str) -> None:
        self._regions = regions
        self._peer = peer
        self._users: Users | None = None

    def __call__(self, place: RegionRange) -> RegionView:
        """Return a range, as `ClientRegions.locate` does."""
        if self._users is None:
            self._users = self._regions.users_of(self._peer)
        return self._regions.locate(place, self._users)


def _visible(entries: Iterable[_Registration], users: Users) -> list[_Registration]:
    return [entry for entry in entries if users and users <= entry.users]
