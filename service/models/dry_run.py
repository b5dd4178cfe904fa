"""Opens a model version as loading would, short of warming it up, and closes it again.

Blocks: for the time that the engine needs to open the file. Thread: any but the event loop's.
"""

from contextlib import closing
from typing import NamedTuple

from google.protobuf import text_format

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.files import model_file
from forebay_server.service.models.folding import settle_changes
from forebay_server.service.models.placement import open_device_of_kind, open_instance, open_placement
from forebay_server.service.models.repository import ModelEntry
from forebay_server.service.models.settling import settle
from forebay_server.service.models.warmup_samples import inputs_of
from forebay_server.service.results.task import DetectionTask


class Outcome(NamedTuple):
    """The outcome of a dry run.

    Attributes:
        settled: the description with all that was derived, before it is completed.
        completed: the description that would serve.
    """

    settled: ModelDescription
    completed: ModelDescription


def dry_run(entry: ModelEntry, number: int, description: ModelDescription, *, cpu_fallback: bool = False) -> Outcome:
    """Open a version, and close it again.

    Args:
        entry: the model.
        number: of the version.
        description: from the configuration.
        cpu_fallback: whether a model that asks for an unavailable GPU may run on the CPU.

    Raises:
        RepositoryError, EngineError: the version cannot be served.
    """
    clock = MonotonicClock()
    path = model_file(entry, number, description)
    placement = open_placement(description, open_device_of_kind, clock, cpu_fallback=cpu_fallback)
    with closing(placement):
        settled, changes = settle_changes(placement.description, path, None)
        completed = settled
        for device in placement.devices.values():
            with closing(open_instance(settled, path, device, clock, {}, changes)) as engine:
                completed = complete(settle([engine], settled), engine.specs)
                for sample in completed.warmup:
                    inputs_of(sample, completed.config, engine.specs)
    if not placement.devices:
        raise ConfigError(f"{entry.name}: no instance: give instance_group a count")
    return Outcome(settled, completed)


def config_text(entry: ModelEntry, number: int, description: ModelDescription) -> str:
    """Return a configuration that says all that was derived, as text for a file. Arguments and errors as above."""
    settled, completed = dry_run(entry, number, description)
    config = ModelConfig()
    config.CopyFrom(settled.config)
    config.backend = config.backend or description.backend
    config.max_batch_size = completed.config.max_batch_size
    if isinstance(completed.task, DetectionTask):
        config.parameters["head"].string_value = completed.task.head.name
    parameters = [_one_line(key, config) for key in sorted(config.parameters)]
    config.ClearField("parameters")
    question = [f"# {completed.question}"] if completed.question else []
    fields = text_format.MessageToString(config, as_utf8=True).splitlines()
    return "\n".join([*question, *fields, *parameters, ""])


def _one_line(key: str, config: ModelConfig) -> str:
    alone = ModelConfig()
    alone.parameters[key].CopyFrom(config.parameters[key])
    return text_format.MessageToString(alone, as_utf8=True, as_one_line=True)
