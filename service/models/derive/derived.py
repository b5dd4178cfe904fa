"""Completes a description with the parameters that its file holds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.onnx_specs import NodeInfo
from forebay_server.service.models.derive.metadata import read_hints
from forebay_server.service.models.derive.parameters import derive_parameters
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.parameters import read_parameters
from forebay_server.service.models.tasks import task_of


def with_derived(
    description: ModelDescription, inputs: Sequence[NodeInfo], metadata: Mapping[str, str]
) -> ModelDescription:
    """Return the description with derived parameters in its configuration, and the task that they give.

    Args:
        description: from the configuration alone.
        inputs: as the file declares them.
        metadata: of the file.
    """
    filename = description.config_name
    hints = read_hints(metadata)
    found = derive_parameters(read_parameters(description.config, filename), hints, inputs, description.labels_file)
    warnings = (*description.warnings, *(f"{description.name}: {fault}" for fault in hints.faults))
    if not found.values:
        return replace(description, warnings=warnings)
    config = ModelConfig()
    config.CopyFrom(description.config)
    for key, value in found.values.items():
        config.parameters[key].string_value = value
    own = read_parameters(config, filename)
    task = task_of(own, description.labels, filename)
    return replace(description, config=config, task=task, derived=found.sources, warnings=warnings)
