"""The treatment of every field of a model's configuration: one table for the service, the docs and the tests.

A path names a field, or a message with all its fields. Every field of ModelConfig is covered by exactly one path
(tests/unit/models/test_fields.py). `docs/models.md` shows the table (`make diagrams`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from google.protobuf.message import Message

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.backends import BACKENDS

Kind = Literal["acted on", "always so", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class Treatment:
    """The treatment of one field.

    Attributes:
        kind: *acted on*; *always so*: the service always does this, so the field changes nothing; *ignored*: with one
            warning; *refused*: otherwise the model would not do what its author means.
        text: the effect, or the reason.
    """

    kind: Kind
    text: str


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_TABLE: tuple[tuple[Kind, tuple[tuple[str, str], ...]], ...] = (
    (
        "acted on",
        (
            ("name", "must be the folder's name if given"),
            ("platform", _listed(backend.platform for backend in BACKENDS.values())),
            ("backend", _listed(alias for name, backend in BACKENDS.items() for alias in (name, *backend.aliases))),
            ("version_policy", "latest (default 1), all, specific"),
            (
                "max_batch_size",
                "most rows of a batch, at most 4096; 0 with inputs or outputs written: no batch dimension; otherwise "
                "the engine decides",
            ),
            ("input.name", "must be one of the model's"),
            ("input.data_type", "must be the model's"),
            ("input.dims", "must fit the model's; clients see the model's number where this says -1"),
            ("input.reshape", "between what clients send and what the model takes"),
            (
                "input.optional",
                "requests may leave out an input of an ONNX model that has an initializer, whose value is used then; "
                "any other is required all the same, with a warning",
            ),
            ("output.name", "must be one of the model's"),
            ("output.data_type", "must be the model's"),
            ("output.dims", "as for inputs"),
            ("output.reshape", "as for inputs"),
            ("output.label_filename", "one label a line; for `classification` and for tasks"),
            ("instance_group.name", "returned by ModelConfig"),
            (
                "instance_group.count",
                "instances on each GPU of the group, or on the CPU; at most 64 of all groups that are not passive; "
                "several [engine processes](operations.md#several-engine-processes) share them out",
            ),
            (
                "instance_group.kind",
                "[gpu.md](gpu.md); KIND_GPU without a GPU, or on a backend that runs on the CPU, is refused, unless "
                "`--cpu-fallback`",
            ),
            (
                "instance_group.gpus",
                "these; none: all of the machine. Named on the CPU, they are ignored, with a warning. "
                "[gpu.md](gpu.md#several-gpus)",
            ),
            ("instance_group.passive", "the group's instances are not created"),
            ("default_model_filename", "in the version's folder"),
            ("metric_tags", "labels of the nv_inference_* metrics, `_` before each name"),
            ("dynamic_batching.preferred_batch_size", "[batching.md](batching.md)"),
            ("dynamic_batching.max_queue_delay_microseconds", "longest time that a batch waits to fill"),
            ("dynamic_batching.priority_levels", "1 is the most urgent"),
            ("dynamic_batching.default_priority_level", "level of requests without one"),
            ("dynamic_batching.default_queue_policy", "timeouts and the length of the queue"),
            ("dynamic_batching.priority_queue_policy", "the same for one level"),
            ("parameters", "see below"),
            ("model_warmup", "requests that run before a version serves, [see below](#warm-up)"),
            ("optimization.priority", "which model goes first on a device, [see below](#priorities-between-models)"),
            ("instance_group.rate_limiter.priority", "the same, within a level of optimization.priority; 1 goes first"),
        ),
    ),
    (
        "always so",
        (
            ("dynamic_batching.preserve_ordering", "order is kept for each stream"),
            ("optimization.cuda.graphs", "CUDA graphs are used wherever the engine can; `cuda_graphs` turns them off"),
            ("optimization.cuda.output_copy_stream", "downloads have a CUDA stream of their own"),
            ("optimization.input_pinned_memory", "on a GPU, host buffers are pinned"),
            ("optimization.output_pinned_memory", "on a GPU, host buffers are pinned"),
            ("optimization.eager_batching", "the next batch is formed while one executes"),
            ("input.format", "the layout is the model's own"),
        ),
    ),
    (
        "ignored",
        (
            ("input.is_non_linear_format_io", "the model file says so itself"),
            ("output.is_non_linear_format_io", "the model file says so itself"),
            ("instance_group.profile", "the profile that fits the batch best is taken"),
            ("instance_group.rate_limiter.resources", "an instance needs cores only"),
            ("instance_group.secondary_devices", "there is no other device"),
            ("instance_group.host_policy", "threads are not bound to cores"),
            ("cc_model_filenames", "the file is chosen by default_model_filename"),
            ("optimization.graph", "the backend's own options decide"),
            ("optimization.cuda.busy_wait_events", "threads sleep until an event is done"),
            ("optimization.cuda.graph_spec", "graphs are made of the sizes in `graph_sizes`"),
            ("optimization.execution_accelerators", "`provider` chooses how ONNX Runtime executes"),
            ("optimization.gather_kernel_buffer_threshold", "rows are gathered by the CPU"),
            ("model_operations", "custom operation libraries are not loaded"),
            ("batch_input", "batch inputs are not computed"),
            ("batch_output", "batch outputs are not split"),
            ("model_repository_agents", "there are no repository agents"),
            ("response_cache", "responses are not cached"),
            ("runtime", "backends have one runtime"),
            ("model_metrics", "buckets of histograms are fixed"),
            ("sequence_batching.max_sequence_idle_microseconds", "a stream's order needs no slot of a sequence"),
            ("sequence_batching.direct", "requests of a stream are kept in order without it"),
            ("sequence_batching.oldest", "requests of a stream are kept in order without it"),
        ),
    ),
    (
        "refused",
        (
            ("ensemble_scheduling", "ensembles are not served: call the models one by one"),
            ("sequence_batching.control_input", "control inputs are not served: remove sequence_batching"),
            ("sequence_batching.state", "states are not served: remove sequence_batching"),
            ("sequence_batching.iterative_sequence", "requests run once: remove sequence_batching"),
            ("model_transaction_policy.decoupled", "decoupled models are not served: every request has one response"),
            ("input.allow_ragged_batch", "ragged batches are not served: remove it, and requests of one shape batch"),
            ("input.is_shape_tensor", "shape tensors are not served: export the model without shape inputs"),
            ("output.is_shape_tensor", "shape tensors are not served: export the model without shape outputs"),
        ),
    ),
)
FIELDS: Mapping[str, Treatment] = MappingProxyType(
    {path: Treatment(kind, text) for kind, rows in _TABLE for path, text in rows}
)
"""Path -> treatment."""


def warnings_of(config: ModelConfig) -> list[str]:
    """Return one line for each field without effect."""
    lines = [
        f"{path} is ignored: {treatment.text}" for path, _, treatment in _present(config) if treatment.kind == "ignored"
    ]
    return list(dict.fromkeys(lines))


def refusals_of(config: ModelConfig) -> list[str]:
    """Return one line for each field that cannot be served."""
    lines = [f"{where}: {treatment.text}" for _, where, treatment in _present(config) if treatment.kind == "refused"]
    return list(dict.fromkeys(lines))


def _present(message: Message, path: str = "", where: str = "") -> Iterator[tuple[str, str, Treatment]]:
    """Yield the fields that are set: their path, their place for people, and their treatment."""
    for field, value in message.ListFields():
        here = path + field.name
        if (treatment := FIELDS.get(here)) is not None:
            yield here, where + field.name, treatment
            continue
        for part in _parts(value):
            name = getattr(part, "name", "")
            outer = f"{field.name} {name!r}: " if name else f"{field.name}."
            yield from _present(part, f"{here}.", where + outer)


def _parts(value: Any) -> Iterable[Message]:  # noqa: ANN401 - protobuf's containers
    """Return the messages in a field."""
    return (value,) if isinstance(value, Message) else value
