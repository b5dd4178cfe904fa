"""CUDA shared memory of clients on the same GPU: status, register, unregister. Off by default, with the system's.

The client passes the handle of an allocation of its own (cudaIpcMemHandle_t); the server opens it, checks that the
allocation is as large as the region claims, and copies inputs out of it and outputs into it. The server never passes
the handle on. CUDA's messages go to the log: a client learns that its region was refused, and the remedy.

Owner: the event loop's thread.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
import structlog

from forebay.wire import inference_pb2 as pb
from forebay_server.engines import open_foreign_memory
from forebay_server.engines.errors import BackendUnavailableError, EngineError
from forebay_server.engines.foreign_memory import HANDLE_BYTES, ForeignMemory
from forebay_server.service.frontend.control.rpc import OfPeer, Rpc
from forebay_server.service.frontend.memory.errors import bad_registration, invalid, unknown
from forebay_server.service.frontend.memory.regions import ClientRegions, Region
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference.errors import InferenceError

log = structlog.get_logger(__name__)
_Status = pb.CudaSharedMemoryStatusResponse.RegionStatus


@dataclass(slots=True)
class CudaRegion:
    """An allocation on a GPU; see `service.frontend.memory.regions.Region`."""

    name: str
    device_id: int
    byte_size: int
    memory: ForeignMemory

    def read(self, offset: int, nbytes: int) -> memoryview:
        """Return a copy of a range. Blocks: until the GPU has copied it."""
        with self._asked("read"):
            return self.memory.read(offset, nbytes)

    def write(self, offset: int, data: Bytes) -> None:
        """Put bytes into the region. Blocks: until the GPU has copied them."""
        with self._asked("written"):
            self.memory.write(offset, data)

    def close(self) -> None:
        """Unmap it."""
        self.memory.close()

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            log.warning("CUDA shared memory", region=self.name, error=str(error))
            raise InferenceError(
                grpc.StatusCode.INTERNAL, f"CUDA shared memory region '{self.name}' cannot be {what}: register it anew"
            ) from None


class CudaMemoryRpcs:
    """See the module. Args: regions: keeps the registered regions."""

    def __init__(self, regions: ClientRegions) -> None:
        self._regions = regions

    def rpcs(self) -> dict[str, tuple[Rpc | OfPeer, Any]]:
        """Return the RPCs by name."""
        return {
            "CudaSharedMemoryStatus": (OfPeer(self.status), pb.CudaSharedMemoryStatusRequest),
            "CudaSharedMemoryRegister": (OfPeer(self.register), pb.CudaSharedMemoryRegisterRequest),
            "CudaSharedMemoryUnregister": (OfPeer(self.unregister), pb.CudaSharedMemoryUnregisterRequest),
        }

    def status(self, request: pb.CudaSharedMemoryStatusRequest, peer: str) -> pb.CudaSharedMemoryStatusResponse:
        """Answer with the asking user's regions, or one by name."""
        found = cast("list[CudaRegion]", self._regions.all_of(CudaRegion, peer))
        if request.name:
            found = [region for region in found if region.name == request.name]
            if not found:
                raise unknown("cuda ", request.name)
        return pb.CudaSharedMemoryStatusResponse(
            regions={
                region.name: _Status(name=region.name, device_id=region.device_id, byte_size=region.byte_size)
                for region in found
            }
        )

    async def register(
        self, request: pb.CudaSharedMemoryRegisterRequest, peer: str
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Open a region, on a thread: the first one makes CUDA start, which takes a while."""
        name = request.name
        self._regions.check_new(name, peer)
        if not request.byte_size:
            raise bad_registration(name, "byte_size is 0")
        opening = asyncio.ensure_future(asyncio.to_thread(_open, request))
        try:
            memory = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        try:
            new = self._regions.check_new(name, peer)  # another one may have come meanwhile
        except InferenceError:
            memory.close()
            raise
        self._regions.add(CudaRegion(name, request.device_id, request.byte_size, memory), new)
        return pb.CudaSharedMemoryRegisterResponse()

    def unregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, peer: str
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Unregister one region, or all of the user."""
        self._regions.remove(CudaRegion, request.name, peer)
        return pb.CudaSharedMemoryUnregisterResponse()


def _open(request: pb.CudaSharedMemoryRegisterRequest) -> ForeignMemory:
    """Open the allocation of a client's handle. Blocks. Thread: any. Raises InferenceError."""
    name = request.name
    if len(request.raw_handle) != HANDLE_BYTES:
        raise bad_registration(
            name, f"raw_handle has {len(request.raw_handle)} bytes, a cudaIpcMemHandle_t {HANDLE_BYTES}"
        )
    try:
        return open_foreign_memory("cuda", handle=request.raw_handle, index=request.device_id, nbytes=request.byte_size)
    except BackendUnavailableError as error:
        log.warning("CUDA shared memory", region=name, error=str(error))
        raise invalid(
            f"failed to register CUDA shared memory region: '{name}', GPUs not supported: this server has no GPU "
            f"{request.device_id}"
        ) from None
    except EngineError as error:
        log.warning("CUDA shared memory", region=name, error=str(error))
        raise bad_registration(
            name,
            "the handle cannot be opened: it must be of memory that another process of this machine allocated "
            f"with cudaMalloc on GPU {request.device_id}, of at least byte_size ({request.byte_size}) bytes",
        ) from None


def _close(opening: "asyncio.Future[ForeignMemory]") -> None:
    """Close a region that no caller waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _conforms(region: CudaRegion) -> Region:
    return region
