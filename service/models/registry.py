"""Which model versions serve now: loads them from the repositories, finds them by name, closes them.

Owner: the thread that loads and closes, one at a time (a lock); `find` is safe on any thread, since it reads one
immutable mapping that is swapped whole.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

import service
from service.errors import UnknownModelError
from service.models.config import describe, model_file, serving_versions
from service.models.opening import VersionContext, open_version
from service.models.repository import ModelEntry, Repository
from service.models.version import ModelVersion

log = structlog.get_logger(__name__)

# Beside the package `service`, in the tree as in an installation; importing `models` would find a user's own folder of
# that name first when it lies in the working directory.
BUNDLED_REPOSITORY = Path(service.__file__).parent.parent / "models"


class ModelRegistry:
    """See the module.

    Args:
        paths: model repositories; empty for the bundled one.
        context: what every version shares.
    """

    def __init__(self, paths: Sequence[Path], context: VersionContext) -> None:
        self._paths = tuple(paths) or (BUNDLED_REPOSITORY,)
        self._context = context
        self._lock = threading.Lock()
        self._versions: Mapping[str, Mapping[str, ModelVersion]] = {}

    def load_all(self) -> None:
        """Load every model of the repositories. Raises RepositoryError or EngineError; what was loaded stays."""
        for entry in Repository(self._paths).models():
            self._load(entry)

    def find(self, name: str, version: str) -> ModelVersion:
        """Return a version that is ready; the newest one for an empty `version`. Raises UnknownModelError."""
        versions = self._versions.get(name)
        if not versions:
            known = ", ".join(sorted(self._versions)) or "none"
            raise UnknownModelError(f"no model {name[:128]!r} here; loaded are: {known}")
        if version:
            if version not in versions:
                known = ", ".join(versions)
                raise UnknownModelError(f"model {name!r} has no version {version[:20]!r}; loaded are: {known}")
            return versions[version]
        return versions[max(versions, key=int)]

    def all(self) -> list[ModelVersion]:
        """Return every version that serves now. Thread: any."""
        return [version for versions in self._versions.values() for version in versions.values()]

    def versions(self) -> dict[str, list[str]]:
        """Return the versions that serve now, by model."""
        return {name: list(versions) for name, versions in self._versions.items()}

    def close(self, timeout_s: float | None = None) -> bool:
        """Close every version; say whether all their threads ended."""
        with self._lock:
            versions = [version for by_number in self._versions.values() for version in by_number.values()]
            self._versions = {}
        closed = [version.close(timeout_s) for version in versions]
        return all(closed)

    def _load(self, entry: ModelEntry) -> None:
        description = describe(entry)
        for warning in description.warnings:
            log.warning("configuration", model=entry.name, detail=warning)
        with self._lock:
            for number in serving_versions(entry, description):
                path = model_file(entry, number, description)
                version = open_version(description, str(number), path, self._context)
                serving = dict(self._versions.get(entry.name, {}))
                serving[version.version] = version
                self._versions = {**self._versions, entry.name: serving}
                log.info("model loaded", model=entry.name, version=version.version, backend=description.backend)
