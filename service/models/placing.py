"""Where a model runs: its device is opened, or the CPU's in its place where that was allowed."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from engines import open_device
from engines.device import Device
from engines.errors import BackendUnavailableError
from service.clock import Clock
from service.models.description import ModelDescription

log = structlog.get_logger(__name__)

OpenDevice = Callable[[str, Clock], Device]
_ADVICE = {
    "torch": "write KIND_CPU in instance_group, or start the server with --cpu-fallback",
    "tensorrt": "plans run on a GPU only; serve the ONNX file on the CPU",
}


def open_device_of_kind(kind: str, clock: Clock) -> Device:
    """Open the real thing: `cpu`, or `cuda:` and a number."""
    name, _, index = kind.partition(":")
    return open_device(name, clock=clock, index=int(index or 0))


def open_placed(
    description: ModelDescription, open_device: OpenDevice, clock: Clock, *, cpu_fallback: bool
) -> tuple[Device, ModelDescription]:
    """Open a model's device; return it, and the description with the device that it became.

    Raises:
        BackendUnavailableError: it cannot be had, and nothing may take its place; the message says what to do.
    """
    try:
        return open_device(description.device, clock), description
    except BackendUnavailableError as error:
        if description.device == "cpu":
            raise
        if not (cpu_fallback and description.backend == "torch"):
            raise BackendUnavailableError(f"{error}; or {_ADVICE[description.backend]}") from error
        log.warning("runs on the CPU", model=description.name, reason=str(error))
        return open_device("cpu", clock), replace(description, device="cpu")


def device_kind(description: ModelDescription) -> str:
    """Return the kind of device that a model runs on."""
    return description.device.partition(":")[0]
