"""Checks every model of a repository as loading would, up to its trial run, and reports its faults.

For the command line: no model serves here, and one faulty model does not hide another.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import EngineError
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config import describe
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.files import model_file, serving_versions
from forebay_server.service.models.folding import settle_changes
from forebay_server.service.models.placement import open_device_of_kind, open_instance, open_placement
from forebay_server.service.models.repository import ModelEntry, Repository, RepositoryError
from forebay_server.service.models.settling import settle
from forebay_server.service.models.warmup_samples import inputs_of


@dataclass(frozen=True, slots=True)
class VersionReport:
    """A report about one version, or about a model none of whose versions could be checked.

    Attributes:
        model: name; empty if the name is unknown, or for reports about the repository.
        version: decimal number, or empty.
        problem: the reason why it cannot be served; empty if it can.
        summary: its inputs and outputs; empty if there are only warnings.
        warnings: parts of its configuration without effect.
    """

    model: str
    version: str = ""
    problem: str = ""
    summary: str = ""
    warnings: tuple[str, ...] = ()


def check_repositories(paths: Sequence[Path], *, cpu_fallback: bool = False) -> list[VersionReport]:
    """Return the findings about every model, by name."""
    try:
        scan = Repository(paths).scan()
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
    clock = MonotonicClock()
    try:
        path = model_file(entry, number, description)
        placement = open_placement(description, open_device_of_kind, clock, cpu_fallback=cpu_fallback)
        with closing(placement):
            warnings = (*entry.passed_over, *placement.description.warnings)
            summary = ""
            settled, changes = settle_changes(placement.description, path, None)
            for device in placement.devices.values():
                with closing(open_instance(settled, path, device, clock, {}, changes)) as engine:
                    settle([engine], settled)
                    completed = complete(settled, engine.specs)
                    for sample in completed.warmup:
                        inputs_of(sample, completed.config, engine.specs)
                    summary = f"{entry.name} {version}: {_summary(engine.specs)}"
    except (RepositoryError, EngineError) as error:
        text = str(error).replace(f"{entry.root}/", "")
        problem = text if text.startswith(entry.name) else f"{entry.name}: {text}"
        return VersionReport(entry.name, version, problem=problem, warnings=warnings)
    return VersionReport(entry.name, version, summary=summary, warnings=warnings)


def _summary(specs: EngineSpecs) -> str:
    rows = f"up to {specs.max_batch_size} rows" if specs.has_batch_dimension else "no batch dimension"
    return f"{_listed(specs.inputs)} -> {_listed(specs.outputs)}; {rows}"


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {NAME_BY_DTYPE[spec.dtype]} {list(spec.shape)}" for spec in tensors)
