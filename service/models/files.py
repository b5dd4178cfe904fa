"""Selects the versions of a model that serve, the model file of each, and the backend of that file.

Looks at names only, as `service.models.repository` does.
"""

from pathlib import Path

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.backends import BACKENDS
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.repository import CONFIG_NAME, MAX_SHOWN, ModelEntry, RepositoryError, readable

FILENAMES = {name: backend.filenames for name, backend in BACKENDS.items()}


def model_file(entry: ModelEntry, version: int, description: ModelDescription) -> Path | None:
    """Return the model file of a version; None if the backend needs none.

    Raises:
        RepositoryError: the file is missing, or a link that leads out of the repository.
    """
    if not FILENAMES[description.backend]:
        return None
    names = (description.model_filename,) if description.model_filename else FILENAMES[description.backend]
    for name in names:
        path = entry.file(str(version), name)
        if path is None and description.backend == "onnxruntime":  # a folder with the model and its weights
            path = entry.file(str(version), name, FILENAMES["onnxruntime"][0])
        if path is not None:
            entry.check_weights(path)
            return path
    there = [name for usual in FILENAMES.values() for name in usual if entry.file(str(version), name) is not None]
    found = f"; {' and '.join(there)} is there: name its backend in {entry.config_name}" if there else ""
    remedy = found or f": {_other_file(entry, version) or 'put the model file there'}"
    raise RepositoryError(f"{entry.name}/{version}: no {' or '.join(names)}{remedy}")


def serving_versions(entry: ModelEntry, description: ModelDescription) -> tuple[int, ...]:
    """Return the versions that the version policy selects, rising. A model without files and folders has version 1.

    Raises:
        RepositoryError: the policy selects none.
    """
    versions = entry.versions or (() if FILENAMES[description.backend] else (1,))
    policy = description.config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            chosen = versions
        case "specific":
            chosen = tuple(version for version in versions if version in set(policy.specific.versions))
        case _:
            chosen = versions[-(policy.latest.num_versions or 1) :]
    if not chosen:
        raise RepositoryError(f"{entry.name}: no version to serve: there are {list(versions) or 'none'}")
    return chosen


def backend_of_files(config: ModelConfig, entry: ModelEntry) -> str:
    """Derive the backend from the name of the model file, in the newest version."""
    if config.default_model_filename:
        suffix = "." + config.default_model_filename.rpartition(".")[2]
        found = [backend for backend, names in FILENAMES.items() if any(name.endswith(suffix) for name in names)]
    else:
        found = next(filter(None, (_backends_of(entry, version) for version in reversed(entry.versions))), [])
    if len(found) == 1:
        return found[0]
    where = f"{entry.name}/{entry.versions[-1]}" if entry.versions else entry.name
    names = ", ".join(name for usual in FILENAMES.values() for name in usual)
    if found:
        raise RepositoryError(f"{where}: more than one model file ({names}): name the backend in {entry.config_name}")
    newest = entry.versions[-1] if entry.versions else None
    remedy = _other_file(entry, newest) or f"put it there, or name the backend in {CONFIG_NAME}"
    raise RepositoryError(f"{where}: no model file, which would be one of {names}: {remedy}")


def _other_file(entry: ModelEntry, version: int | None) -> str:
    """Return the remedy for a file of the version, or beside it, that is not where it is looked for; empty if none."""
    if version is None or entry.is_bare or version not in entry.versions:
        return ""
    with readable(entry.name):
        inside = sorted(path.name for path in (entry.path / str(version)).iterdir())
        beside = sorted(path.name for path in entry.path.iterdir())
    if "model.py" in inside:
        return "model.py is for Triton's Python backend, which Forebay does not have: export the model as ONNX"
    usual = {name.rpartition(".")[2]: name for names in FILENAMES.values() for name in names}
    for name in inside:
        if (wanted := usual.get(name.rpartition(".")[2])) is not None:
            return f"rename {name[:MAX_SHOWN]} to {wanted}, or write default_model_filename: {name[:MAX_SHOWN]!r}"
    for name in beside:
        if name in usual.values():
            return f"move {entry.name}/{name} to {entry.name}/{version}/{name}"
    return ""


def _backends_of(entry: ModelEntry, version: int) -> list[str]:
    """Return the backends whose model file a version has."""
    return [
        backend
        for backend, names in FILENAMES.items()
        if any(entry.file(str(version), name) or entry.file(str(version), name, name) for name in names)
    ]
