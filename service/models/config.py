"""Converts a model's configuration, as written or derived where there is none, to the values that the service uses.

`describe` works from the folder alone; `service.models.completion.complete` adds the opened engine's values.

`service.models.fields` lists the treatment of each field. `ModelDescription.warnings` names ignored fields; all errors
are reported in one message.
"""

import difflib
import re
from contextlib import AbstractContextManager

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.backends import BACKENDS
from forebay_server.service.models.bare_files import LABELS_NAME
from forebay_server.service.models.config_text import MAX_LABELS_BYTES, ConfigError, read_config, read_text
from forebay_server.service.models.description import BatchingOptions, ModelDescription
from forebay_server.service.models.fields import refusals_of, warnings_of
from forebay_server.service.models.files import backend_of_files
from forebay_server.service.models.instances import check_gpu, device_kind_of, group_warnings, groups_of
from forebay_server.service.models.parameters import OwnParameters, read_parameters
from forebay_server.service.models.repository import ModelEntry, RepositoryError
from forebay_server.service.models.tasks import task_of
from forebay_server.service.models.warmup_samples import WarmupSample, read_samples

BACKEND_BY_NAME = {alias: name for name, backend in BACKENDS.items() for alias in (name, *backend.aliases)}
BACKEND_BY_PLATFORM = {backend.platform: name for name, backend in BACKENDS.items()}
MAX_BATCH_SIZE = 4096

TRITON_ONLY = frozenset(
    {
        "dali",
        "ensemble",
        "fil",
        "identity",
        "openvino",
        "python",
        "tensorflow",
        "tensorflow_graphdef",
        "tensorflow_savedmodel",
        "tensorrtllm",
        "vllm",
    }
)
"""Triton's backends and platforms that are no misspelling of one of Forebay's."""
POLICY_KEY = "policy"  # read by service.models.batching
OPTION_ALIASES = {("onnxruntime", "intra_op_thread_count"): "intra_op_threads"}
"""Triton's names of options that exist here under another name."""


def describe(entry: ModelEntry, config: ModelConfig | None = None, *, cpu_fallback: bool = False) -> ModelDescription:
    """Return the description of a model before an engine is opened (`specs`, `image` and output indices come later).

    Args:
        entry: the model's folder.
        config: instead of the one in the folder.
        cpu_fallback: whether a model that asks for an unavailable GPU may run on the CPU.

    Raises:
        ConfigError: config.pbtxt cannot be read or asks for something that cannot be served.
        RepositoryError: no model file to derive the backend from, or a link that leads out of the repository.
    """
    warnings: list[str] = []
    if config is None:
        config = read_config(entry, warnings) or ModelConfig()
    filename = entry.config_name
    problems = _Problems(filename)
    with problems:
        _check_name(config, entry, filename)
    with problems:
        _check_fields(config, filename)
    own, backend = OwnParameters(), ""
    with problems:
        own = read_parameters(config, filename)
    with problems:
        backend = _backend(config, entry, filename)
        provider = own.backend_options.get("provider", "cpu")
        check_gpu(config, provider, backend, filename, is_fallback=cpu_fallback)
    with problems:
        groups_of(config, backend, filename)
    labels: dict[str, tuple[str, ...]] = {}
    with problems:
        labels = _labels(config, entry, filename)
    samples: tuple[WarmupSample, ...] = ()
    with problems:
        samples = read_samples(config, entry, filename)
    for check in (_max_batch_size, _batching, _check_tags):
        with problems:
            check(config, filename)
    problems.tell()
    options, unknown = _backend_options(own, backend)
    labels_file = None if own.labels or labels else _labels_file(entry, warnings)
    warnings += _warnings(config, backend) + unknown
    return ModelDescription(
        name=entry.name,
        backend=backend,
        max_batch_size=_max_batch_size(config, filename),
        task=task_of(own, labels, filename),
        latency_budget_ms=own.latency_budget_ms,
        device_kind=device_kind_of(config, backend),
        groups=groups_of(config, backend, filename),
        batching=_batching(config, filename),
        backend_options=options,
        model_filename=config.default_model_filename,
        labels=labels,
        labels_file=labels_file,
        warmup=samples,
        warnings=tuple(f"{filename}: {line}" for line in warnings),
        is_bare=entry.is_bare,
        config=config,
    )


class _Problems(AbstractContextManager[None]):
    """Collects problems, to report all of them at once: `with problems:` around each check."""

    def __init__(self, filename: str) -> None:
        self._prefix = f"{filename}: "
        self._found: list[RepositoryError] = []

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, RepositoryError):
            return False
        self._found.append(error)
        return True

    def tell(self) -> None:
        """Raise one error for all problems. Raises RepositoryError or ConfigError."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise ConfigError(self._prefix + "; ".join(str(error).removeprefix(self._prefix) for error in self._found))


def _check_name(config: ModelConfig, entry: ModelEntry, filename: str) -> None:
    if config.name not in ("", entry.name):
        raise ConfigError(
            f"{filename}: name is {config.name!r}, but the folder is {entry.name!r}: give both the same name"
        )


def _check_fields(config: ModelConfig, filename: str) -> None:
    if refusals := refusals_of(config):
        raise ConfigError(f"{filename}: {'; '.join(refusals)}")


def _check_tags(config: ModelConfig, filename: str) -> None:
    for name in config.metric_tags:
        if not re.fullmatch(r"[a-zA-Z0-9_]{1,64}", name):
            raise ConfigError(
                f"{filename}: metric_tags: {name[:64]!r} is no name of a label: use letters, digits and '_', at most 64"
            )


def _backend(config: ModelConfig, entry: ModelEntry, filename: str) -> str:
    named = _lookup(config.backend, BACKEND_BY_NAME, "backend", filename)
    platform = _lookup(config.platform, BACKEND_BY_PLATFORM, "platform", filename)
    if named and platform and named != platform:
        raise ConfigError(
            f"{filename}: backend {config.backend!r} and platform {config.platform!r} differ: leave one out"
        )
    return named or platform or backend_of_files(config, entry)


def _lookup(value: str, known: dict[str, str], field: str, filename: str) -> str | None:
    if value and value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        if not close and (meant := next((name for name in known if name.startswith(value) or value in name), "")):
            hint = f"did you mean {meant!r}? "
        if value in TRITON_ONLY:
            hint = "Triton has it, Forebay does not: serve the network itself, as ONNX; "
        raise ConfigError(f"{filename}: unknown {field} {value!r}: {hint}known are {', '.join(known)}")
    return known.get(value)


def _max_batch_size(config: ModelConfig, filename: str) -> int | None:
    size = config.max_batch_size
    if not 0 <= size <= MAX_BATCH_SIZE:
        raise ConfigError(f"{filename}: max_batch_size is {size}: it must be from 0 to {MAX_BATCH_SIZE}")
    has_full_shapes = bool(config.input or config.output)
    return size if size or has_full_shapes else None


def _backend_options(own: OwnParameters, backend: str) -> tuple[dict[str, str], list[str]]:
    """Return the parameters that are options of the backend, and one line for each that is not."""
    known = (*BACKENDS[backend].options, POLICY_KEY)
    options: dict[str, str] = {}
    unknown: list[str] = []
    for key, value in own.backend_options.items():
        name = OPTION_ALIASES.get((backend, key), key)
        if name in known:
            options[name] = value
            continue
        close = difflib.get_close_matches(key, known, n=1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        unknown.append(f"parameter {key!r} is ignored: backend {backend!r} has no such option{hint}")
    return options, unknown


def _batching(config: ModelConfig, filename: str) -> BatchingOptions:
    if not config.HasField("dynamic_batching"):
        return BatchingOptions()
    dynamic = config.dynamic_batching
    sizes = tuple(sorted(set(dynamic.preferred_batch_size)))
    most = config.max_batch_size or MAX_BATCH_SIZE
    if sizes and not (sizes[0] >= 1 and sizes[-1] <= most):
        raise ConfigError(
            f"{filename}: preferred_batch_size {list(sizes)}: each must be from 1 to max_batch_size ({most})"
        )
    levels, default = dynamic.priority_levels, dynamic.default_priority_level
    if levels and not 1 <= default <= levels:
        raise ConfigError(
            f"{filename}: default_priority_level is {default}: it must be from 1 to priority_levels ({levels})"
        )
    return BatchingOptions(sizes, dynamic.max_queue_delay_microseconds or None, levels, default or 1)


def _labels(config: ModelConfig, entry: ModelEntry, filename: str) -> dict[str, tuple[str, ...]]:
    """Return the labels of every output that names a file."""
    labels: dict[str, tuple[str, ...]] = {}
    for output in config.output:
        name = output.label_filename
        if not name:
            continue
        text = read_text(entry, name, MAX_LABELS_BYTES)
        if text is None:
            raise ConfigError(f"{filename}: label_filename {name!r} is not in the folder {entry.name}: put it there")
        labels[output.name] = _lines(text)
    return labels


def _labels_file(entry: ModelEntry, warnings: list[str]) -> tuple[str, ...] | None:
    """Return the lines of the file beside the model; None if there is none that can be used."""
    try:
        text = read_text(entry, LABELS_NAME, MAX_LABELS_BYTES)
    except RepositoryError as error:
        warnings.append(f"{LABELS_NAME} is not used: {error}")
        return None
    return None if text is None else _lines(text)


def _lines(text: str) -> tuple[str, ...]:
    """Split at LF and CRLF alone: a label may contain any other character that Unicode calls a line separator."""
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n")) if text else ()


def _warnings(config: ModelConfig, backend: str) -> list[str]:
    lines = warnings_of(config)
    lines.extend(
        f"model_warmup {sample.name or number!r} is ignored: batch_size is 0"
        for number, sample in enumerate(config.model_warmup, start=1)
        if not sample.batch_size
    )
    lines.extend(group_warnings(config, backend))
    return lines
