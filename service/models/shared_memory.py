"""The memory that a version shares with front ends in other processes, as the models see it: `service.group` has it."""

from collections.abc import Callable
from typing import Protocol

from forebay_server.engines.device import Device
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.batching.egress_time import EgressNumbers
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.outputs import Finish, OutputReader
from forebay_server.service.request import Feasibility


class SharedMemory(Protocol):
    """Inputs of requests are written there by other processes, outputs by this one. Owner: the version."""

    @property
    def most_requests(self) -> int:
        """Requests that can be with the version at once."""
        ...

    @property
    def egress(self) -> EgressNumbers:
        """How long the other processes need to deliver a result."""
        ...

    def reader(self, model_version: str, finish: Finish) -> OutputReader:
        """Return what puts the outputs of a batch there, and then hands its completions to `finish`."""
        ...

    def publish(self, feasibility: Feasibility) -> None:
        """Let the other processes know. Thread: any, one at a time. Blocks: no."""
        ...

    def close(self) -> None:
        """Free it: no request is left. The calling thread is attached to its device."""
        ...


OpenMemory = Callable[[Device, EngineSpecs, FilePlace | None], SharedMemory]
"""Opens the memory of a version of these specs, with room for files, for a device to which the calling thread is
attached.

Raises DeviceMemoryError if it does not fit."""
