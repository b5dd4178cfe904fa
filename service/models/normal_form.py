"""The configuration that ModelConfig returns: as written, completed with all known values. Pure."""

from typing import cast

from forebay.wire.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput
from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.description import ModelDescription


def data_type_of(spec: TensorSpec) -> DataType:
    """Return the configuration's name for the type of a tensor."""
    name = NAME_BY_DTYPE[spec.dtype]
    return cast("DataType", DataType.Value("TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"))


def normalised(description: ModelDescription, specs: EngineSpecs) -> ModelConfig:
    """Return the configuration completed with all values that are now known."""
    config = ModelConfig()
    config.CopyFrom(description.config)
    config.name = description.name
    config.backend = config.backend or description.backend
    backend = BACKENDS[description.backend]
    config.platform = config.platform or backend.platform
    if not config.default_model_filename and len(backend.filenames) == 1:
        config.default_model_filename = backend.filenames[0]
    config.max_batch_size = specs.max_batch_size if specs.has_batch_dimension else 0
    inputs = {tensor.name: tensor for tensor in description.config.input}
    outputs = {tensor.name: tensor for tensor in description.config.output}
    del config.input[:]
    del config.output[:]
    for spec in specs.inputs:
        _fill(config.input.add(), inputs.get(spec.name), spec)
    for spec in specs.outputs:
        _fill(config.output.add(), outputs.get(spec.name), spec)
    for pinned in (config.optimization.input_pinned_memory, config.optimization.output_pinned_memory):
        pinned.enable = True
    if config.version_policy.WhichOneof("policy_choice") is None:
        config.version_policy.latest.num_versions = 1
    _normalise_groups(config, description)
    if config.max_batch_size > 1 and config.WhichOneof("scheduling_choice") is None:
        config.dynamic_batching.SetInParent()
    if config.HasField("dynamic_batching") and not config.dynamic_batching.preferred_batch_size:
        config.dynamic_batching.preferred_batch_size.append(max(1, config.max_batch_size))
    return config


def _normalise_groups(config: ModelConfig, description: ModelDescription) -> None:
    if not config.instance_group:
        config.instance_group.add(count=1)
    is_cpu = description.device_kind == DeviceKind.CPU and description.engine_options.get("provider", "cpu") == "cpu"
    every = sorted({gpu for group in description.groups for gpu in group.gpus})
    for number, group in enumerate(config.instance_group):
        group.name = group.name or f"{description.name}_{number}"
        group.count = max(1, group.count)
        if group.kind == ModelInstanceGroup.KIND_AUTO or is_cpu:
            group.kind = ModelInstanceGroup.KIND_CPU if is_cpu else ModelInstanceGroup.KIND_GPU
        if group.kind == ModelInstanceGroup.KIND_GPU and not group.gpus:
            group.gpus.extend(every or [0])


def _fill(target: ModelInput | ModelOutput, written: ModelInput | ModelOutput | None, spec: TensorSpec) -> None:
    if written is not None:
        target.MergeFrom(written)  # type: ignore[arg-type]  # both are inputs or both are outputs
    target.name = spec.name
    target.data_type = data_type_of(spec)
    if not target.dims and not spec.shape:  # as Triton: clients send one element, since dims may not be empty
        target.dims.append(1)
        target.reshape.SetInParent()
    elif not target.dims:
        target.dims.extend(spec.shape)
