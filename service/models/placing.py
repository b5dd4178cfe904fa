"""Where a model runs, and an instance of it there, for loading and for looking without loading."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from engines import open_device, open_engine
from engines.device import Device
from engines.engine import Engine
from engines.errors import BackendUnavailableError
from forebay.wire.model_config_pb2 import DataType, ModelInput, ModelOutput
from service.clock import Clock
from service.models.description import ModelDescription

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
    """Open a model's device, or the CPU in its place; return it, and the description, which then says so in a warning.

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
        warning = f"{description.name}: runs on the CPU: {error}"
        return open_device("cpu", clock), replace(description, device="cpu", warnings=(*description.warnings, warning))


def device_kind(description: ModelDescription) -> str:
    """Return the kind of device that a model runs on."""
    return description.device.partition(":")[0]


def open_instance(
    description: ModelDescription,
    model_path: Path | None,
    device: Device,
    clock: Clock,
    defaults: Mapping[str, Mapping[str, str]],
) -> Engine:
    """Load a model as one instance. Raises EngineError.

    Args:
        description: placed.
        model_path: the model file; None for a backend without one.
        device: from `open_placed`.
        clock: time.
        defaults: options by backend; a model's own win.
    """
    return open_engine(
        description.backend,
        model_path=model_path,
        device=device,
        clock=clock,
        options={
            **_declared(description, model_path),
            **defaults.get(description.backend, {}),
            **description.engine_options,
        },
        max_batch_size=description.max_batch_size,
    )


def _declared(description: ModelDescription, model_path: Path | None) -> dict[str, str]:
    """Return the tensors of a TorchScript model, which declares none, as the configuration writes them."""
    if description.backend != "torch" or model_path is None or model_path.suffix != ".pt":
        return {}
    config = description.config
    sides = (("inputs", config.input), ("outputs", config.output))
    return {key: ";".join(_declaration(tensor) for tensor in tensors) for key, tensors in sides if tensors}


def _declaration(tensor: ModelInput | ModelOutput) -> str:
    type_name = DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return f"{tensor.name}:{type_name}:{','.join(str(dim) for dim in tensor.dims)}"
