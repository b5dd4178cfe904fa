"""Checks every model of a repository as loading would, up to its trial run, and reports its faults.

For the command line: no model serves here, and one faulty model does not hide another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import EngineError
from forebay_server.service.models.config import describe
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.dry_run import dry_run
from forebay_server.service.models.files import serving_versions
from forebay_server.service.models.repository import ModelEntry, Repository, RepositoryError
from forebay_server.service.results.task import DetectionTask


@dataclass(frozen=True, slots=True)
class VersionReport:
    """A report about one version, or about a model none of whose versions could be checked.

    Attributes:
        model: name; empty if the name is unknown, or for reports about the repository.
        version: decimal number, or empty.
        problem: the reason why it cannot be served; empty if it can.
        summary: its inputs and outputs; empty if there are only warnings.
        warnings: parts of its configuration without effect.
        derived: parameters that its configuration does not write, with their values and sources.
        question: names the parameters with which it would take pictures; empty if it does, or cannot.
    """

    model: str
    version: str = ""
    problem: str = ""
    summary: str = ""
    warnings: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    question: str = ""


MAX_SHOWN = 80  # characters of a derived value


def check_repositories(paths: Sequence[Path], *, cpu_fallback: bool = False) -> list[VersionReport]:
    """Return the findings about every model, by name."""
    try:
        repository = Repository(paths)
        scan = repository.scan()
        if not scan.models and not scan.problems:
            scan = replace(scan, problems=(repository.say_empty(),))
    except RepositoryError as error:
        return [VersionReport("", problem=str(error))]
    findings = [VersionReport("", problem=problem) for problem in scan.problems]
    if scan.passed_over:
        findings.append(VersionReport("", warnings=scan.passed_over))
    for entry in scan.models:
        findings += _check_model(entry, cpu_fallback=cpu_fallback)
    return findings


def _check_model(entry: ModelEntry, *, cpu_fallback: bool) -> list[VersionReport]:
    try:
        description = describe(entry, cpu_fallback=cpu_fallback)
        numbers = serving_versions(entry, description)
    except RepositoryError as error:
        return [VersionReport(entry.name, problem=str(error))]
    return [_check_version(entry, number, description, cpu_fallback=cpu_fallback) for number in numbers]


def _check_version(
    entry: ModelEntry, number: int, description: ModelDescription, *, cpu_fallback: bool
) -> VersionReport:
    version, warnings = str(number), (*entry.passed_over, *description.warnings)
    try:
        _, completed = dry_run(entry, number, description, cpu_fallback=cpu_fallback)
    except (RepositoryError, EngineError) as error:
        text = str(error).replace(f"{entry.root}/", "")
        problem = text if text.startswith(entry.name) else f"{entry.name}: {text}"
        return VersionReport(entry.name, version, problem=problem, warnings=warnings)
    assert completed.specs is not None  # noqa: S101 - for mypy: completed
    return VersionReport(
        entry.name,
        version,
        summary=f"{entry.name} {version}: {_summary(completed.specs)}",
        warnings=(*entry.passed_over, *completed.warnings),
        derived=_derived(completed),
        question=completed.question,
    )


def _derived(description: ModelDescription) -> tuple[str, ...]:
    values = {key: _short(description.config.parameters[key].string_value) for key in description.derived}
    lines = [f"{key}: {values[key]} ({source})" for key, source in description.derived.items()]
    if isinstance(description.task, DetectionTask) and "head" not in description.config.parameters:
        lines.append(f"head: {description.task.head.name} (names and shapes of the outputs)")
    return tuple(lines)


def _short(value: str) -> str:
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}..."


def _summary(specs: EngineSpecs) -> str:
    rows = f"up to {specs.max_batch_size} rows" if specs.has_batch_dimension else "no batch dimension"
    return f"{_listed(specs.inputs)} -> {_listed(specs.outputs)}; {rows}"


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {NAME_BY_DTYPE[spec.dtype]} {list(spec.shape)}" for spec in tensors)
