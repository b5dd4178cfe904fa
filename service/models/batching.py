"""Converts a model's configuration to the settings of its batch former. Pure."""

from forebay.wire.model_config_pb2 import ModelQueuePolicy
from forebay_server.engines.device import DeviceKind
from forebay_server.service.batching.settings import BatchingSettings, PolicyName, QueuePolicy, TimeoutAction
from forebay_server.service.models.description import ModelDescription

CAPTURED_SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes with a CUDA graph of their own: few, because each keeps an execution context."""


def measured_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Return the batch sizes that are warmed up and calibrated; costs between them are interpolated."""
    return (*(size for size in CAPTURED_SIZES if size < max_batch_size), max_batch_size)


def executed_sizes(device_kind: DeviceKind, max_batch_size: int) -> tuple[int, ...]:
    """Return the executed batch sizes: on CUDA those with a graph, the others are padded; elsewhere every size."""
    return measured_sizes(max_batch_size) if device_kind == DeviceKind.CUDA else tuple(range(1, max_batch_size + 1))


def batching_settings(description: ModelDescription) -> BatchingSettings:
    """Return the former's settings. Raises ValueError for values out of range."""
    if description.specs is None:
        raise ValueError(f"{description.name}: not opened yet")
    dynamic = description.config.dynamic_batching
    options = description.batching
    return BatchingSettings(
        max_batch_size=description.specs.max_batch_size,
        preferred_batch_sizes=options.preferred_batch_sizes,
        max_queue_delay_us=options.max_queue_delay_us or 0,
        priority_levels=options.priority_levels,
        default_priority_level=options.default_priority if options.priority_levels else 0,
        default_queue_policy=_queue_policy(dynamic.default_queue_policy),
        priority_queue_policies={
            int(level): _queue_policy(policy) for level, policy in dynamic.priority_queue_policy.items()
        },
        policy=PolicyName(description.backend_options.get("policy", PolicyName.JIT_EDF)),
    )


def _queue_policy(policy: ModelQueuePolicy) -> QueuePolicy:
    is_delay = policy.timeout_action == ModelQueuePolicy.DELAY
    return QueuePolicy(
        timeout_action=TimeoutAction.DELAY if is_delay else TimeoutAction.REJECT,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )
