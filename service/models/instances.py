"""`instance_group` and `optimization.priority` of a configuration: how many, where, who goes first. Pure."""

from forebay.wire.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelOptimizationPolicy
from service.models.config_text import ConfigError
from service.models.parameters import OwnParameters
from service.pipeline.turns import ModelPriority

MAX_INSTANCES = 64
GPU_BACKENDS = frozenset({"tensorrt", "torch"})
_LEVELS = {
    ModelOptimizationPolicy.PRIORITY_MAX: -1,
    ModelOptimizationPolicy.PRIORITY_DEFAULT: 0,
    ModelOptimizationPolicy.PRIORITY_MIN: 1,
}


def priorities_of(config: ModelConfig, filename: str) -> tuple[ModelPriority, ...]:
    """Return the priority of every instance, in the order of their groups.

    Raises:
        ConfigError: a count below 0, or too many instances.
    """
    level = _LEVELS[config.optimization.priority]
    groups = [group for group in config.instance_group if not group.passive]
    for group in groups:
        if group.count < 0:
            raise ConfigError(f"{filename}: instance_group count is {group.count}: it must be 1 or more")
    count = sum(group.count or 1 for group in groups)
    if count > MAX_INSTANCES:
        raise ConfigError(f"{filename}: {count} instances: at most {MAX_INSTANCES} are served")
    priorities = [ModelPriority(level, group.rate_limiter.priority or 1) for group in groups for _ in _instances(group)]
    return tuple(priorities) or (ModelPriority(level),)


def _instances(group: ModelInstanceGroup) -> range:
    return range(group.count or 1)


def check_gpu(config: ModelConfig, own: OwnParameters, backend: str, filename: str, *, is_fallback: bool) -> None:
    """Raise ConfigError if a model asks for a GPU that its backend does not use, unless falling back is allowed."""
    wants_gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group if not group.passive)
    if not wants_gpu or is_fallback or backend in GPU_BACKENDS or own.backend_options.get("provider", "cpu") != "cpu":
        return
    raise ConfigError(
        f"{filename}: instance_group asks for KIND_GPU, but backend {backend!r} runs on the CPU: write KIND_CPU or "
        "KIND_AUTO, name another backend, or start the server with --cpu-fallback"
    )


def device_of(config: ModelConfig, backend: str, filename: str) -> str:
    """Return where the instances run: TensorRT on a GPU, torch on one if KIND_GPU asks for it, all else on the CPU."""
    groups = [group for group in config.instance_group if not group.passive]
    wants_gpu = backend == "tensorrt" or any(group.kind == ModelInstanceGroup.KIND_GPU for group in groups)
    if backend not in GPU_BACKENDS or not wants_gpu:
        return "cpu"
    gpus = sorted({gpu for group in groups for gpu in group.gpus})
    if len(gpus) > 1:
        raise ConfigError(f"{filename}: instance_group names GPUs {gpus}: the instances of a model share one GPU")
    return f"cuda:{gpus[0] if gpus else 0}"


def group_warnings(config: ModelConfig, backend: str) -> list[str]:
    """Return one line for each thing that only a GPU has, of a backend that runs on the CPU."""
    lines: list[str] = []
    if backend in GPU_BACKENDS:
        return lines
    if any(group.gpus for group in config.instance_group):
        lines.append(f"instance_group.gpus is ignored: backend {backend} runs on the CPU")
    if any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group):
        lines.append(f"instance_group.kind KIND_GPU is ignored: backend {backend} runs on the CPU")
    return lines
