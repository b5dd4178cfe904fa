"""System shared memory of clients on the same machine: status, register, unregister. Off by default.

Keys are plain names below /dev/shm; links and anything that is no regular file are refused, and so is every file that
the asking user may not read and write: the server's own rights are not its clients'. A refusal does not reveal whether
the file exists. Bytes are moved by pread and pwrite, never through a mapping: a client that shortens its file gets an
error, where a mapping would kill the process (SIGBUS). A region keeps only a file descriptor here, and its name is
visible to its owner alone.

Owner: the event loop's thread. Why: docs/adr/0041, docs/adr/0092.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.control.rpc import OfPeer, Rpc
from forebay_server.service.frontend.memory.askers import Users
from forebay_server.service.frontend.memory.errors import (
    bad_registration,
    invalid,
    no_descriptor,
    out_of_range,
    unknown,
)
from forebay_server.service.frontend.memory.regions import ClientRegions, Region
from forebay_server.service.frontend.memory.users import READ_WRITE, SEARCH, has_access_list, may
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference.errors import InferenceError

KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}", re.ASCII)
MAX_OFFSET = 2**63 - 1  # of a file
MAX_SHOWN = 64  # characters of a key in a message
MAX_READ_BYTES = (1 << 31) - 4096  # the most that Linux reads at once; a region's file may be sparse and far larger
RESERVED_PREFIX = "triton_python_backend_shm_region_"  # prefix of keys of Triton's Python backend
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
FOLDER = Path("/dev/shm")  # noqa: S108 - the folder of shm_open on Linux
_Status = pb.SystemSharedMemoryStatusResponse.RegionStatus


@dataclass(slots=True)
class SystemRegion:
    """A range of a file; see `service.frontend.memory.regions.Region`."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return a copy of a range."""
        if nbytes > MAX_READ_BYTES:
            raise out_of_range(self.name)
        data = os.pread(self.descriptor, nbytes, self.offset + offset)
        if len(data) != nbytes:
            raise out_of_range(self.name)
        return data

    def write(self, offset: int, data: Bytes) -> None:
        """Put bytes into the region."""
        start = self.offset + offset
        if os.fstat(self.descriptor).st_size < start + len(data):  # pwrite would make the file longer
            raise out_of_range(self.name)
        rest = memoryview(data)
        try:
            while rest:  # the system may write only a part
                written = os.pwrite(self.descriptor, rest, start)
                rest, start = rest[written:], start + written
        except OSError as error:  # a sparse file on a file system that is full
            raise invalid(f"No room to write shared memory region: '{self.name}'") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


class SystemMemoryRpcs:
    """See the module.

    Args:
        regions: keeps the registered regions.
        folder: of the files that keys name.
    """

    def __init__(self, regions: ClientRegions, folder: Path = FOLDER) -> None:
        self._regions = regions
        self._folder = folder

    def rpcs(self) -> dict[str, tuple[Rpc | OfPeer, Any]]:
        """Return the RPCs by name."""
        return {
            "SystemSharedMemoryStatus": (OfPeer(self.status), pb.SystemSharedMemoryStatusRequest),
            "SystemSharedMemoryRegister": (OfPeer(self.register), pb.SystemSharedMemoryRegisterRequest),
            "SystemSharedMemoryUnregister": (OfPeer(self.unregister), pb.SystemSharedMemoryUnregisterRequest),
        }

    def status(self, request: pb.SystemSharedMemoryStatusRequest, peer: str) -> pb.SystemSharedMemoryStatusResponse:
        """Answer with the asking user's regions, or one by name."""
        found = cast("list[SystemRegion]", self._regions.all_of(SystemRegion, peer))
        if request.name:
            found = [region for region in found if region.name == request.name]
            if not found:
                raise unknown("system ", request.name)
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                region.name: _Status(name=region.name, key=region.key, offset=region.offset, byte_size=region.byte_size)
                for region in found
            }
        )

    def register(
        self, request: pb.SystemSharedMemoryRegisterRequest, peer: str
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region."""
        name, key = request.name, request.key
        new = self._regions.check_new(name, peer)
        if key.removeprefix("/").startswith(RESERVED_PREFIX):
            raise invalid(
                f"cannot register shared memory region '{name}' with key '{key[:MAX_SHOWN]}' as the key contains the "
                f"reserved prefix '{RESERVED_PREFIX}'"
            )
        if request.offset + request.byte_size > MAX_OFFSET:
            raise invalid(
                f"Integer overflow detected: byte_size ({request.byte_size}) + offset ({request.offset}) exceeds "
                f"{MAX_OFFSET} for shared memory region '{name}'"
            )
        descriptor = self._open(key, new.users)
        size = os.fstat(descriptor).st_size
        if not request.byte_size or request.offset + request.byte_size > size:
            os.close(descriptor)
            what = "offset + byte_size exceed the shared memory object" if request.byte_size else "byte_size is 0"
            raise bad_registration(name, what)
        region = SystemRegion(name, key, request.offset, request.byte_size, descriptor)
        self._regions.add(region, new)
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, peer: str
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Unregister one region, or all of the user."""
        self._regions.remove(SystemRegion, request.name, peer)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _open(self, key: str, users: Users) -> int:
        """Return the descriptor of an object that each of `users` may read and write. Raises InferenceError."""
        refusal = InferenceError(grpc.StatusCode.INTERNAL, f"Unable to open shared memory region: '{key[:MAX_SHOWN]}'")
        plain = key.removeprefix("/")
        if not KEY.fullmatch(key) or plain in (".", ".."):
            raise refusal
        try:
            found = os.open(self._folder / plain, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                path = f"/proc/self/fd/{found}"  # this very object, even if its name refers to another by now
                if not self._may_open(found, path, users):
                    raise refusal
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            finally:
                os.close(found)
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                raise no_descriptor() from None
            raise refusal from None

    def _may_open(self, found: int, path: str, users: Users) -> bool:
        status, folder = os.fstat(found), self._folder.stat()
        if not stat.S_ISREG(status.st_mode):
            return False
        is_listed = has_access_list(path)
        return all(
            may(uid, SEARCH, folder) and may(uid, READ_WRITE, status, has_access_list=is_listed) for uid in users
        )


def _conforms(region: SystemRegion) -> Region:
    return region
