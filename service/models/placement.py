"""Places a model's instances on devices and opens them there, for loading and for checking without loading."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from forebay.wire.model_config_pb2 import DataType, ModelInput, ModelOutput
from forebay_server.engines import open_device, open_engine
from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.device import Device, DeviceKind
from forebay_server.engines.engine import Engine
from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.service.clock import Clock
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.instances import check_count

NO_CHANGES = ModelChanges()
OpenDevice = Callable[[str, Clock], Device]
_ADVICE = {
    "asked": "write KIND_CPU in instance_group, or start the server with --cpu-fallback",
    "always": "serve the ONNX file on the CPU",
}
"""When a backend runs on GPUs -> what else to do without one."""


def open_device_of_kind(kind: str, clock: Clock) -> Device:
    """Open the real device: `cpu`, or `cuda:` and a number."""
    name, _, index = kind.partition(":")
    return open_device(name, clock=clock, index=int(index or 0))


@dataclass(frozen=True, slots=True)
class Placement:
    """A model with the open devices of its instances. Owner: the caller of `open_placement`.

    Attributes:
        description: its groups name their GPUs; has a warning if the CPU replaces the GPUs.
        devices: by the names that its instances have for them, that of the first instance first.
    """

    description: ModelDescription
    devices: Mapping[str, Device]

    @property
    def counts(self) -> list[tuple[Device, int]]:
        """The number of instances on each device."""
        counts = Counter(instance.device for instance in self.description.instances)
        return [(self.devices[name], count) for name, count in counts.items()]

    def close(self) -> None:
        """Close the devices, after everything on them is closed."""
        for device in self.devices.values():
            device.close()


def open_placement(
    description: ModelDescription, open_device: OpenDevice, clock: Clock, *, cpu_fallback: bool
) -> Placement:
    """Open the devices of a model's instances, or the CPU in their place.

    Raises:
        BackendUnavailableError: a device is unavailable, and no other may replace it; the message has a remedy.
        ConfigError: with all GPUs there are more instances than are served.
    """
    try:
        return _open_all(description, open_device, clock)
    except BackendUnavailableError as error:
        if description.device_kind == DeviceKind.CPU:
            raise
        gpus = BACKENDS[description.backend].gpus
        if not (cpu_fallback and gpus == "asked"):
            raise BackendUnavailableError(f"{error}; or {_ADVICE[gpus]}") from error
        warning = f"{description.name}: runs on the CPU: {error}"
        on_cpu = replace(description, device_kind=DeviceKind.CPU, warnings=(*description.warnings, warning))
        return _open_all(on_cpu, open_device, clock)


def _open_all(description: ModelDescription, open_device: OpenDevice, clock: Clock) -> Placement:
    devices: dict[str, Device] = {}
    with ExitStack() as undo:

        def open_once(name: str) -> Device:
            if name not in devices:
                devices[name] = open_device(name, clock)
                undo.callback(devices[name].close)
            return devices[name]

        if description.device_kind == DeviceKind.CUDA and not all(group.gpus for group in description.groups):
            every = tuple(range(_gpu_count(description, open_once)))
            groups = tuple(replace(group, gpus=group.gpus or every) for group in description.groups)
            check_count(groups, description.config_name)
            description = replace(description, groups=groups)
        names = list(dict.fromkeys(instance.device for instance in description.instances))
        placement = Placement(description, {name: open_once(name) for name in names})
        for name in devices.keys() - placement.devices.keys():
            devices[name].close()  # it was opened to count
        undo.pop_all()
    return placement


def _gpu_count(description: ModelDescription, open_once: Callable[[str], Device]) -> int:
    """Return the number of GPUs, as the GPU of this engine process tells: a context on another would take memory."""
    try:
        return open_once(f"cuda:{description.part.index}").kind_count
    except BackendUnavailableError:
        if description.part.index == 0:
            raise
        return open_once("cuda:0").kind_count  # there are more engine processes than GPUs


def open_instance(
    description: ModelDescription,
    model_path: Path | None,
    device: Device,
    clock: Clock,
    defaults: Mapping[str, Mapping[str, str]],
    changes: ModelChanges = NO_CHANGES,
) -> Engine:
    """Load a model as one instance. Raises EngineError. The calling thread is attached to `device` then.

    Args:
        description: of a placement.
        model_path: the model file; None for a backend without one.
        device: from `open_placement`.
        clock: source of monotonic nanoseconds.
        defaults: options by backend; a model's own win.
        changes: from `service.models.folding`.
    """
    device.attach_thread()
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
        changes=changes,
    )


def _declared(description: ModelDescription, model_path: Path | None) -> dict[str, str]:
    """Return what only the configuration declares about tensors.

    These are the optional inputs of an ONNX model, and all tensors of a TorchScript model, which declares none.
    """
    if description.backend == "onnxruntime":
        optional = [tensor.name for tensor in description.config.input if tensor.optional]
        return {"optional_inputs": "\n".join(optional)} if optional else {}
    if description.backend != "torch" or model_path is None or model_path.suffix != ".pt":
        return {}
    config = description.config
    sides = (("inputs", config.input), ("outputs", config.output))
    return {key: ";".join(_declaration(tensor) for tensor in tensors) for key, tensors in sides if tensors}


def _declaration(tensor: ModelInput | ModelOutput) -> str:
    type_name = DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return f"{tensor.name}:{type_name}:{','.join(str(dim) for dim in tensor.dims)}"
