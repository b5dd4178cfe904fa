"""System shared memory of clients on the same machine: register, read inputs, write outputs. Off by default.

A region belongs to the connection that registered it: another cannot name it, whatever it guesses. Keys are plain names
below /dev/shm; links and anything that is no regular file are refused. Every range is checked against the region, and
bytes are moved by pread and pwrite, never through a mapping: a client that shortens its file gets an error, where a
mapping would kill the process (SIGBUS). A region keeps only a file descriptor here, and no name of it is ever told to
anybody but its owner.

gRPC does not say when a connection ends. So regions are few, and the least recently used connection loses its regions
first when there are too many.

Owner: the event loop's thread.
"""

import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from service.frontend.inference_codec import RegionRange, WantedOutput
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_rpcs import OfPeer, Rpc

KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}", re.ASCII)
MAX_REGIONS = 512
MAX_NAME_CHARACTERS = 256
MAX_OFFSET = 2**63 - 1  # of a file
RESERVED_PREFIX = "triton_python_backend_shm_region_"
FOLDER = Path("/dev/shm")  # noqa: S108 - what shm_open uses on Linux
_Status = pb.SystemSharedMemoryStatusResponse.RegionStatus


@dataclass(slots=True)
class _Region:
    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


class ClientMemory:
    """See the module.

    Args:
        is_enabled: whether clients may register at all.
        folder: where keys are files.
    """

    def __init__(self, *, is_enabled: bool, folder: Path = FOLDER) -> None:
        self._is_enabled = is_enabled
        self._folder = folder
        self._regions: OrderedDict[str, dict[str, _Region]] = OrderedDict()  # by peer, least recently used first

    def rpcs(self) -> dict[str, tuple[Rpc | OfPeer, Any]]:
        """Return the RPCs by name."""
        return {
            "SystemSharedMemoryStatus": (OfPeer(self.status), pb.SystemSharedMemoryStatusRequest),
            "SystemSharedMemoryRegister": (OfPeer(self.register), pb.SystemSharedMemoryRegisterRequest),
            "SystemSharedMemoryUnregister": (OfPeer(self.unregister), pb.SystemSharedMemoryUnregisterRequest),
            "CudaSharedMemoryStatus": (self.cuda_status, pb.CudaSharedMemoryStatusRequest),
            "CudaSharedMemoryRegister": (self.cuda_register, pb.CudaSharedMemoryRegisterRequest),
            "CudaSharedMemoryUnregister": (self.cuda_unregister, pb.CudaSharedMemoryUnregisterRequest),
        }

    def status(self, request: pb.SystemSharedMemoryStatusRequest, peer: str) -> pb.SystemSharedMemoryStatusResponse:
        """Tell a connection its regions."""
        self._check_enabled()
        regions = self._regions.get(peer, {})
        chosen = [self._find(request.name, peer)] if request.name else list(regions.values())
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                region.name: _Status(name=region.name, key=region.key, offset=region.offset, byte_size=region.byte_size)
                for region in chosen
            }
        )

    def register(
        self, request: pb.SystemSharedMemoryRegisterRequest, peer: str
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region."""
        self._check_enabled()
        name = request.name
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS or name.startswith(RESERVED_PREFIX):
            raise _invalid(f"a region cannot be called '{name[:MAX_NAME_CHARACTERS]}'")
        if name in self._regions.get(peer, {}):
            raise InferenceError(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        if request.byte_size == 0:
            raise _invalid(f"byte_size of shared memory region '{name}' must be at least 1")
        if request.offset + request.byte_size > MAX_OFFSET:
            raise _invalid(
                f"Integer overflow detected: byte_size ({request.byte_size}) + offset ({request.offset}) exceeds "
                f"{MAX_OFFSET} for shared memory region '{name}'"
            )
        descriptor = self._open(request.key, request.offset + request.byte_size)
        self._make_room()
        region = _Region(name, request.key, request.offset, request.byte_size, descriptor)
        self._regions.setdefault(peer, {})[name] = region
        self._regions.move_to_end(peer)
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, peer: str
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all of the connection. What is not there is no error, as clients expect."""
        self._check_enabled()
        regions = self._regions.get(peer, {})
        for name in [request.name] if request.name else list(regions):
            region = regions.pop(name, None)
            if region is not None:
                os.close(region.descriptor)
        if not regions:
            self._regions.pop(peer, None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def cuda_status(self, _: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
        """There are never any regions."""
        return pb.CudaSharedMemoryStatusResponse()

    def cuda_register(self, _: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:
        """Refuse."""
        raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, "CUDA shared memory is not supported")

    def cuda_unregister(self, _: pb.CudaSharedMemoryUnregisterRequest) -> pb.CudaSharedMemoryUnregisterResponse:
        """There is nothing to forget."""
        return pb.CudaSharedMemoryUnregisterResponse()

    def read(self, place: RegionRange, peer: str) -> bytes:
        """Return the bytes of a range. Raises InferenceError."""
        region = self._checked(place, peer)
        data = os.pread(region.descriptor, place.byte_size, region.offset + place.offset)
        if len(data) != place.byte_size:
            raise _invalid(f"Invalid offset + byte size for shared memory region: '{region.name}'")
        return data

    def check(self, wanted: WantedOutput, peer: str) -> None:
        """Raise InferenceError if an output cannot go where a request wants it, before anything is executed."""
        if wanted.region is not None:
            self._checked(wanted.region, peer)

    def write(self, wanted: WantedOutput, data: bytes, peer: str) -> None:
        """Put an output into its range. Raises InferenceError."""
        place = wanted.region
        if place is None:
            return
        region = self._checked(place, peer)
        if len(data) > place.byte_size:
            raise InferenceError(
                grpc.StatusCode.INTERNAL,
                f"shared memory size specified with the request for output '{wanted.face.name}' ({place.byte_size} "
                f"bytes) should be at least {len(data)} bytes to hold the results",
            )
        end = region.offset + place.offset + len(data)
        if os.fstat(region.descriptor).st_size < end:  # pwrite would make the file longer
            raise _invalid(f"Invalid offset + byte size for shared memory region: '{region.name}'")
        os.pwrite(region.descriptor, data, region.offset + place.offset)

    def close(self) -> None:
        """Close every region. Idempotent."""
        for regions in self._regions.values():
            for region in regions.values():
                os.close(region.descriptor)
        self._regions.clear()

    def _checked(self, place: RegionRange, peer: str) -> _Region:
        self._check_enabled()
        region = self._find(place.region, peer)
        self._regions.move_to_end(peer)
        if not 0 <= place.offset <= region.byte_size:
            raise _invalid(f"Invalid offset for shared memory region: '{region.name}'")
        if place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise _invalid(f"Invalid offset + byte size for shared memory region: '{region.name}'")
        return region

    def _find(self, name: str, peer: str) -> _Region:
        region = self._regions.get(peer, {}).get(name)
        if region is None:
            raise InferenceError(
                grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name[:MAX_NAME_CHARACTERS]}'"
            )
        return region

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
                raise _invalid(f"offset + byte_size exceed the shared memory object '{key}'")
            raise error
        return descriptor

    def _make_room(self) -> None:
        while sum(len(regions) for regions in self._regions.values()) >= MAX_REGIONS:
            _, regions = self._regions.popitem(last=False)
            for region in regions.values():
                os.close(region.descriptor)

    def _check_enabled(self) -> None:
        if not self._is_enabled:
            raise InferenceError(
                grpc.StatusCode.UNIMPLEMENTED,
                "Client shared memory is disabled. Start the server with '--allow-client-shm' to enable.",
            )


def _invalid(message: str) -> InferenceError:
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, message)
