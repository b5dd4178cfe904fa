"""The registry of serving model versions: loads them from the repositories, finds them by name, closes them.

Opening is slow and may hang; it holds no lock, so models are opened side by side. Changing the serving versions is
quick, and one thread at a time does it (a lock). `find` is safe on any thread: it reads one immutable mapping that is
swapped whole. Loads and unloads of one model run one after the other; the callers ensure this.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

import forebay_server
from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.errors import UnknownModelError
from forebay_server.service.journal.statistics import VersionReport
from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file, serving_versions
from forebay_server.service.models.opening import open_version
from forebay_server.service.models.repository import ModelEntry, Repository, RepositoryError, readable
from forebay_server.service.models.served import acquire_version, find_version
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.models.version_context import VersionContext

log = structlog.get_logger(__name__)

# The last path is the folder with the models, whether the tree has links or not (ADR 0100).
BUNDLED_REPOSITORY = Path(forebay_server.__path__[-1], "models").resolve()


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """The result of `ModelRegistry.open` for one model. Owner: the caller, until `publish` or `discard`.

    Attributes:
        name: of the model.
        versions: all that shall serve, rising; None for those that serve already and stay.
    """

    name: str
    versions: Mapping[str, ModelVersion | None]

    def discard(self) -> None:
        """Close the opened versions. Blocks: until their threads have ended."""
        for version in self.versions.values():
            if version is not None:
                version.close()


class ModelRegistry:
    """See the module.

    Args:
        paths: model repositories; empty for the bundled one.
        context: shared by all versions; constant.
    """

    def __init__(self, paths: Sequence[Path], context: VersionContext) -> None:
        self._paths = tuple(paths) or (BUNDLED_REPOSITORY,)
        self.context = context
        self._lock = threading.Lock()
        self._versions: Mapping[str, Mapping[str, ModelVersion]] = {}
        self._known: Mapping[str, frozenset[str]] = {}
        self._closing: list[_Closing] = []
        self._is_closed = False
        # called with a retired version, to send its users away. Thread: any
        self.on_retired: Callable[[ModelVersion], None] = lambda _: None

    @property
    def repository(self) -> Repository:
        """The folders. Raises RepositoryError if one is gone."""
        return Repository(self._paths)

    def find(self, name: str, version: str) -> ModelVersion:
        """Return a version that is ready; the newest one for an empty `version`. Raises UnknownModelError."""
        return find_version(self._versions, name, version)

    def acquire(self, name: str, version: str) -> ModelVersion:
        """Return a version that stays open until its `end_use`. Raises UnknownModelError. Thread: any."""
        return acquire_version(self.find, name, version)

    def known_versions(self, name: str) -> frozenset[str] | None:
        """Return all versions of a model that serve, served or failed to load; None if there were none. Thread: any."""
        return self._known.get(name)

    def known(self) -> Mapping[str, frozenset[str]]:
        """Return `known_versions` of every model. Thread: any."""
        return self._known

    def all(self) -> list[ModelVersion]:
        """Return every version that serves now. Thread: any."""
        return [version for versions in self._versions.values() for version in versions.values()]

    def running(self) -> list[ModelVersion]:
        """Return every version that may execute a batch, including those that are being closed. Thread: any."""
        return [*self.all(), *(closing.version for closing in self._closing if closing.is_alive())]

    def reports(self) -> list[VersionReport]:
        """Return the reports of every version that serves now. Thread: any."""
        return [
            VersionReport(
                version.name,
                version.version,
                version.statistics.snapshot(),
                version.former.statistics().waiting_requests,
                version.load_ns,
                version.description.config.metric_tags,
            )
            for version in self.all()
        ]

    def versions(self) -> dict[str, list[str]]:
        """Return the versions that serve now, by model."""
        return {name: list(versions) for name, versions in self._versions.items()}

    def load(
        self, entry: ModelEntry, config: ModelConfig | None = None, keep: Collection[str] = ()
    ) -> dict[str, ModelVersion]:
        """Do `open` and `publish`. Raises their exceptions."""
        return self.publish(self.open(entry, config, keep))

    def open(self, entry: ModelEntry, config: ModelConfig | None = None, keep: Collection[str] = ()) -> OpenedModel:
        """Open the versions that the configuration selects. Blocks: for seconds. The serving versions do not change.

        Args:
            entry: the model's folder.
            config: instead of the one in the folder.
            keep: versions that need not be opened again if they serve already.

        Raises:
            RepositoryError, EngineError: the model cannot be served; nothing is left open.
        """
        with readable(entry.name):
            description = describe(entry, config, cpu_fallback=self.context.cpu_fallback)
            for warning in description.warnings:
                log.warning("configuration", model=entry.name, detail=warning)
            kept = self.kept(entry.name, keep)
            numbers = [str(number) for number in serving_versions(entry, description)]
            with self._lock:
                self._known = {**self._known, entry.name: self._known.get(entry.name, frozenset()) | set(numbers)}
            opened: dict[str, ModelVersion | None] = {}
            try:
                for number in numbers:
                    opened[number] = None
                    if number not in kept:
                        path = model_file(entry, int(number), description)
                        opened[number] = open_version(description, number, path, self.context)
            except BaseException:
                OpenedModel(entry.name, opened).discard()
                raise
            return OpenedModel(entry.name, opened)

    def kept(self, name: str, keep: Collection[str]) -> list[str]:
        """Return those of the versions `keep` that serve now. Thread: any."""
        return [number for number in self._versions.get(name, {}) if number in keep]

    def publish(self, opened: OpenedModel) -> dict[str, ModelVersion]:
        """Replace the serving versions by the opened ones, and return those that serve then, by version.

        Raises:
            RepositoryError: the registry is closed, or a version that should stay has gone; nothing is left open.
        """
        with self._lock:
            serving = self._versions.get(opened.name, {})
            replaced = {number: version or serving.get(number) for number, version in opened.versions.items()}
            complete = {number: version for number, version in replaced.items() if version is not None}
            if not self._is_closed and len(complete) == len(replaced):
                self._versions = {**self._versions, opened.name: complete}
                for number, version in opened.versions.items():
                    if version is not None:
                        backend = version.description.backend
                        log.info("model loaded", model=opened.name, version=number, backend=backend)
                self._retire([version for number, version in serving.items() if complete.get(number) is not version])
                return complete
        opened.discard()
        raise RepositoryError(f"{opened.name}: unloaded, or the server is shutting down")

    def unload(self, name: str) -> list[str]:
        """Retire a model: it takes no new users and closes when the last one has gone; return its versions.

        Raises:
            UnknownModelError: the model is not loaded.
        """
        with self._lock:
            serving = self._versions.get(name)
            if not serving:
                raise UnknownModelError(f"no model {name[:128]!r} is loaded")
            self._versions = {other: versions for other, versions in self._versions.items() if other != name}
            self._retire(list(serving.values()))
            log.info("model unloaded", model=name, versions=list(serving))
            return list(serving)

    def unloading(self) -> list[tuple[str, str]]:
        """Return model and version of everything that is being closed. Thread: any."""
        return [(closing.version.name, closing.version.version) for closing in self._closing if closing.is_alive()]

    def close(self, timeout_s: float | None = None) -> bool:
        """Close every version; return whether all their threads ended within `timeout_s` each.

        After this, `publish` raises.
        """
        with self._lock:
            self._is_closed = True
            versions = [version for by_number in self._versions.values() for version in by_number.values()]
            self._versions = {}
            closing, self._closing = self._closing, []
        closed = [version.close(timeout_s) for version in versions]
        for thread in closing:
            thread.join(timeout_s)
        return all(closed) and all(thread.is_closed for thread in closing)

    def _retire(self, versions: Sequence[ModelVersion]) -> None:
        self._closing = [closing for closing in self._closing if closing.is_alive()]
        for version in versions:
            version.retire()
            self._closing.append(_Closing(version))
            self._closing[-1].start()
            self.on_retired(version)


class _Closing(threading.Thread):
    """Closes a retired version when its last user has gone."""

    def __init__(self, version: ModelVersion) -> None:
        super().__init__(name=f"{version.name}.{version.version}.closing", daemon=True)
        self.version = version
        self.is_closed = False

    def run(self) -> None:
        """Wait and close."""
        self.is_closed = self.version.close()
