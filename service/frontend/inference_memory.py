"""System shared memory of clients on the same machine: register, tell, unregister. Off by default.

Keys are plain names below /dev/shm; links and anything that is no regular file are refused. Bytes are moved by pread
and pwrite, never through a mapping: a client that shortens its file gets an error, where a mapping would kill the
process (SIGBUS). A region keeps only a file descriptor here, and no name of it is ever told to anybody but its owner.

Owner: the event loop's thread.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from forebay.wire import inference_pb2 as pb
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_regions import ClientRegions, Region, invalid, out_of_range
from service.frontend.inference_rpcs import OfPeer, Rpc
from service.frontend.messages import Bytes

KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}", re.ASCII)
MAX_OFFSET = 2**63 - 1  # of a file
MAX_READ_BYTES = (1 << 31) - 4096  # what Linux reads at once; a region's file may be sparse and far larger
FOLDER = Path("/dev/shm")  # noqa: S108 - what shm_open uses on Linux
_Status = pb.SystemSharedMemoryStatusResponse.RegionStatus


@dataclass(slots=True)
class SystemRegion:
    """A range of a file; see `service.frontend.inference_regions.Region`."""

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
            while rest:  # the system may write less than it is given
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
        regions: keeps what was registered.
        folder: where keys are files.
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
        """Tell a connection its regions."""
        name = request.name
        found = [self._regions.one_of(SystemRegion, name, peer)] if name else self._regions.all_of(SystemRegion, peer)
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                region.name: _Status(name=region.name, key=region.key, offset=region.offset, byte_size=region.byte_size)
                for region in cast("list[SystemRegion]", found)
            }
        )

    def register(
        self, request: pb.SystemSharedMemoryRegisterRequest, peer: str
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region."""
        name = request.name
        self._regions.check_new(name, request.byte_size, peer)
        if request.offset + request.byte_size > MAX_OFFSET:
            raise invalid(
                f"Integer overflow detected: byte_size ({request.byte_size}) + offset ({request.offset}) exceeds "
                f"{MAX_OFFSET} for shared memory region '{name}'"
            )
        descriptor = self._open(request.key, request.offset + request.byte_size)
        self._regions.add(SystemRegion(name, request.key, request.offset, request.byte_size, descriptor), peer)
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, peer: str
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all of the connection."""
        self._regions.remove(SystemRegion, request.name, peer)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _open(self, key: str, least_bytes: int) -> int:
        plain = key.removeprefix("/")
        error = InferenceError(grpc.StatusCode.INTERNAL, f"Unable to open shared memory region: '{key[:64]}'")
        if not KEY.fullmatch(key) or plain in (".", ".."):
            raise error
        try:
            descriptor = os.open(self._folder / plain, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            raise error from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < least_bytes:
            os.close(descriptor)
            if stat.S_ISREG(status.st_mode):
                raise invalid(f"offset + byte_size exceed the shared memory object '{key}'")
            raise error
        return descriptor


def _conforms(region: SystemRegion) -> Region:
    return region
