"""`instance_group` and `optimization.priority` of a configuration: number, devices and order of instances. Pure.

As in Triton, `count` instances run on *each* GPU that a group names, and a group on GPUs that names none is on all of
them. All instances of a model run on one kind of device.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forebay.wire.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelOptimizationPolicy
from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.device import DeviceKind
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.pipeline.model_priority import ModelPriority

MAX_INSTANCES = 64
NORMAL = ModelPriority()
_LEVELS = {
    ModelOptimizationPolicy.PRIORITY_MAX: -1,
    ModelOptimizationPolicy.PRIORITY_DEFAULT: 0,
    ModelOptimizationPolicy.PRIORITY_MIN: 1,
}


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """One `instance_group` entry of a configuration.

    Attributes:
        count: instances on each device.
        gpus: numbers of the GPUs; none for all of them, and on the CPU.
        priority: of each instance among the models that share its device.
    """

    count: int = 1
    gpus: tuple[int, ...] = ()
    priority: ModelPriority = NORMAL


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance.

    Attributes:
        device: `cpu`, or `cuda:` and the GPU's number.
        priority: among the models that share the device.
    """

    device: str = "cpu"
    priority: ModelPriority = NORMAL


@dataclass(frozen=True, slots=True)
class Part:
    """The instances of every model that one of several engine processes opens (docs/adr/0240).

    Attributes:
        index: of the engine process, from 0.
        count: of engine processes.
    """

    index: int = 0
    count: int = 1

    def of(self, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """Return those of this process: the ones on its GPUs, or its turns among instances on the CPU; at least one."""
        if self.count == 1:
            return instances
        gpus = [int(each.device.partition(":")[2] or 0) for each in instances]
        is_on_cpu = instances[0].device == "cpu"
        turns = range(len(instances)) if is_on_cpu else gpus
        own = [each for each, turn in zip(instances, turns, strict=True) if turn % self.count == self.index]
        return tuple(own) or (instances[self.index % len(instances)],)


WHOLE = Part()


def groups_of(config: ModelConfig, backend: str, filename: str) -> tuple[InstanceGroup, ...]:
    """Return the groups whose instances will run, at least one.

    Raises:
        ConfigError: a count below 0, a GPU twice in a group or below 0, or too many instances.
    """
    level = _LEVELS[config.optimization.priority]
    groups = tuple(
        InstanceGroup(group.count or 1, tuple(group.gpus), ModelPriority(level, group.rate_limiter.priority or 1))
        for group in _running(config, backend)
    )
    for group in groups:
        _check(group, filename)
    groups = groups or (InstanceGroup(priority=ModelPriority(level)),)
    check_count(groups, filename)
    return groups


def _check(group: InstanceGroup, filename: str) -> None:
    if group.count < 0:
        raise ConfigError(f"{filename}: instance_group count is {group.count}: it must be 1 or more")
    for gpu, times in Counter(group.gpus).items():
        if gpu < 0:
            raise ConfigError(f"{filename}: instance_group names GPU {gpu}: numbers start at 0")
        if times > 1:
            raise ConfigError(
                f"{filename}: instance_group names GPU {gpu} {times} times: name it once, and raise count for more "
                "instances on each GPU"
            )


def check_count(groups: Sequence[InstanceGroup], filename: str) -> None:
    """Raise ConfigError for too many instances."""
    count = sum(group.count * max(1, len(group.gpus)) for group in groups)
    if count > MAX_INSTANCES:
        raise ConfigError(f"{filename}: {count} instances: at most {MAX_INSTANCES} are served")


def _gpus(backend: str) -> Literal["never", "asked", "always"]:
    """Return when a backend runs on GPUs: never, where the configuration names none that is known."""
    return BACKENDS[backend].gpus if backend in BACKENDS else "never"


def _asked(config: ModelConfig) -> list[ModelInstanceGroup]:
    return [group for group in config.instance_group if not group.passive]


def _running(config: ModelConfig, backend: str) -> list[ModelInstanceGroup]:
    """Leave out the CPU instances of a torch model on GPUs: one cost table holds for all lanes."""
    groups = _asked(config)
    if _gpus(backend) == "always" or device_kind_of(config, backend) == DeviceKind.CPU:
        return groups
    return [group for group in groups if group.kind != ModelInstanceGroup.KIND_CPU]


def check_gpu(config: ModelConfig, provider: str, backend: str, filename: str, *, is_fallback: bool) -> None:
    """Raise ConfigError if a model asks for a GPU that its backend does not use, unless falling back is allowed.

    Args:
        config: as written.
        provider: the backend's option of that name.
        backend: of the model.
        filename: for messages.
        is_fallback: whether the model may run on the CPU instead.
    """
    wants_gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in _asked(config))
    if not wants_gpu or is_fallback or _gpus(backend) != "never" or provider != "cpu":
        return
    raise ConfigError(
        f"{filename}: instance_group asks for KIND_GPU, but backend {backend!r} runs on the CPU: write KIND_CPU or "
        "KIND_AUTO, name another backend, or start the server with --cpu-fallback"
    )


def device_kind_of(config: ModelConfig, backend: str) -> DeviceKind:
    """Return CUDA if the backend always runs on GPUs, or does so when asked and KIND_GPU asks; CPU otherwise."""
    wants_gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in _asked(config))
    gpus = _gpus(backend)
    return DeviceKind.CUDA if gpus == "always" or (gpus == "asked" and wants_gpu) else DeviceKind.CPU


def instances_of(groups: Sequence[InstanceGroup], device_kind: DeviceKind) -> tuple[Instance, ...]:
    """Return every instance, the GPUs alternating: among equal lanes the first gets a batch.

    Args:
        groups: with their GPUs named, if they run on GPUs.
        device_kind: CPU or CUDA.
    """
    dealt: list[tuple[int, Instance]] = []
    on_device = Counter[str]()
    for group in groups:
        devices = [f"cuda:{gpu}" for gpu in group.gpus] if device_kind == DeviceKind.CUDA else ["cpu"]
        for device in devices * group.count:
            dealt.append((on_device[device], Instance(device, group.priority)))
            on_device[device] += 1
    return tuple(instance for _, instance in sorted(dealt, key=lambda each: each[0]))


def group_warnings(config: ModelConfig, backend: str) -> list[str]:
    """Return one line for each part of `instance_group` that has no effect."""
    kind = device_kind_of(config, backend)
    has_gpus = any(group.gpus for group in config.instance_group)
    kinds = {group.kind for group in _asked(config)}
    lines: list[str] = []
    if kind == DeviceKind.CPU and has_gpus:
        lines.append(f"instance_group.gpus is ignored: {_who(backend)} runs on the CPU")
    if kind == DeviceKind.CPU and config.optimization.priority == ModelOptimizationPolicy.PRIORITY_MAX:
        lines.append(
            f"optimization.priority PRIORITY_MAX is ignored: {_who(backend)} runs on the CPU, where models can only be "
            "put behind: give the others PRIORITY_MIN"
        )
    if kind == DeviceKind.CPU and ModelInstanceGroup.KIND_GPU in kinds:
        lines.append(f"instance_group.kind KIND_GPU is ignored: {_who(backend)} runs on the CPU")
    if _gpus(backend) == "always" and ModelInstanceGroup.KIND_CPU in kinds:
        lines.append(f"instance_group.kind KIND_CPU is ignored: backend {backend} runs on GPUs only")
    elif kind == DeviceKind.CUDA and ModelInstanceGroup.KIND_CPU in kinds:
        lines.append(
            "an instance_group of kind KIND_CPU is ignored: another asks for KIND_GPU, and a model runs on one kind"
        )
    return lines


def _who(backend: str) -> str:
    return f"backend {backend}" if _gpus(backend) == "never" else f"a {backend} model without KIND_GPU"
