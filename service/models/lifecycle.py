"""Loading and unloading while serving: the three control modes, the state of every model, and the polling of folders.

*none*: every model is loaded at start and stays. *explicit*: clients load and unload; at start only the models named in
the settings are loaded. *poll*: the folders are scanned at intervals; new or changed models are loaded, removed ones
are unloaded. A model that cannot be loaded never replaces one that serves.

Loads and unloads of one model run one after the other, those of different models side by side (`load_queue`). An unload
gives up earlier loads of its model.

Thread: any for every method. Methods that return a Future do not block; `start`, `load`, `unload` and `poll` block
until all work is done. The state of one model is written only by the thread that is working on that model.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import structlog
from google.protobuf import json_format

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.errors import UnknownModelError
from forebay_server.service.models.attempts import Attempt, Attempts
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.fault_log import FaultLog
from forebay_server.service.models.fingerprints import Fingerprints, fingerprints_of
from forebay_server.service.models.index import ModelState, State, index_of
from forebay_server.service.models.load_queue import LoadQueue, QueueClosedError
from forebay_server.service.models.loader import ModelLoader
from forebay_server.service.models.public_words import public_words
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.repository import (
    CONFIG_NAME,
    MissingRepositoryError,
    ModelEntry,
    Repository,
    RepositoryError,
)
from forebay_server.service.models.retries import Retries
from forebay_server.service.models.sent_model import unpacked

log = structlog.get_logger(__name__)

ControlMode = Literal["none", "explicit", "poll"]
ALL_MODELS = "*"
GIVEN_UP = "unloaded while it was loading"
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
SHUTTING_DOWN = "the server is shutting down"
MAX_NAME_SHOWN = 128


class LoadError(Exception):
    """A model cannot be loaded or unloaded; the message has its name and the reason."""


class ModelLifecycle:
    """See the module.

    Args:
        registry: holds the serving versions.
        loader: loads into it.
        attempts: at loading, with their time limits.
        mode: the control mode.
        wanted: models to load at start in mode explicit; `*` for all.
        on_change: receives a model's name and whether it serves now. Thread: the caller's.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        loader: ModelLoader,
        attempts: Attempts,
        mode: ControlMode = "none",
        wanted: Sequence[str] = (),
        on_change: Callable[[str, bool], None] = lambda _name, _is_serving: None,
    ) -> None:
        self.mode = mode
        self._registry = registry
        self._wanted = tuple(wanted)
        self._on_change = on_change
        self._loader = loader
        self._attempts = attempts
        self._queue = LoadQueue()
        self._notes: dict[str, tuple[State, str]] = {}  # by model: LOADING, or the reason why it is UNAVAILABLE
        self._loaded: dict[str, Fingerprints] = {}  # poll: of serving models, taken just before their load
        self._tried: dict[str, Fingerprints] = {}  # poll: of the latest attempt, failed or not
        self._retries = Retries()  # poll: of models that could not be loaded
        self._expected: dict[str, None] = {}  # models that should serve from the start and are still in the repository
        self._faults = FaultLog()

    def start(self, *, exit_on_error: bool = True) -> None:
        """Load the models that should serve from the start, one by one, without rehearsals: the operator's own models.

        Args:
            exit_on_error: raise for the first model that cannot be loaded; otherwise leave it out, with a warning.

        Raises:
            RepositoryError, EngineError: a model cannot be loaded; or the repository is gone.
        """
        repository = self._registry.repository
        for name in self._names_at_start(repository, exit_on_error=exit_on_error):
            try:
                self._expected[name] = None
                self._load_at_start(repository, name)
            except Exception as error:
                if exit_on_error:
                    raise
                if str(error) not in self._faults:
                    log.warning("model not loaded", model=name, error=str(error))

    def _names_at_start(self, repository: Repository, *, exit_on_error: bool) -> Sequence[str]:
        if self.mode == "explicit" and ALL_MODELS not in self._wanted:
            missing = [name for name in self._wanted if exit_on_error and not repository.has(name)]
            if missing:
                raise RepositoryError(repository.say_missing(missing[0]))
            return self._wanted
        scan = repository.scan()
        self._faults.note_scan(scan)
        if scan.problems and exit_on_error:
            raise RepositoryError(scan.problems[0])
        names = sorted({entry.name for entry in scan.models} | scan.broken)
        if not names:
            words = repository.say_empty()
            if exit_on_error and self.mode == "none":
                raise RepositoryError(words)
            log.warning(words)
        return names

    def _load_at_start(self, repository: Repository, name: str) -> None:
        root: Path | None = None
        try:
            entry = repository.model(name)
            root = entry.root
            self._tried[name] = seen = fingerprints_of(entry)
            attempt = self._attempts.begin(name)
            try:
                self._loader.load(attempt, entry, is_rehearsed=False)
            finally:
                self._attempts.end(attempt)
        except Exception as error:
            self._notes[name] = ("UNAVAILABLE", public_words(error, name, root))
            self._retries.note_failure(name)
            raise
        self._loaded[name] = seen

    def lacking(self) -> list[str]:
        """Return the models that should serve from the start and do not. Thread: any."""
        return sorted(set(self._expected) - set(self._registry.versions()))

    def load(self, name: str, config_json: str | None = None) -> None:
        """Load a model, or load it again. Raises LoadError; the version that served before goes on."""
        self.submit_load(name, config_json).result()

    def submit_load(
        self, name: str, config_json: str | None = None, files: Mapping[str, bytes] = NO_FILES
    ) -> Future[None]:
        """Do `load` once all earlier work on this model is done. Raises LoadError if too much work waits.

        Args:
            name: of the model.
            config_json: instead of the configuration in the repository.
            files: instead of those in the repository, by path below the model's folder.
        """
        attempt = self._attempts.begin(name)
        try:
            nbytes = len(config_json or "") + sum(map(len, files.values()))
            return self._queue.submit(name, lambda: self._load_named(attempt, config_json, files), nbytes)
        except QueueClosedError as error:
            self._attempts.end(attempt)
            raise LoadError(f"failed to load '{name[:MAX_NAME_SHOWN]}', {error}") from None

    def unload(self, name: str) -> None:
        """Unload a model: it takes no new requests, and closes when the last one is answered. Raises LoadError."""
        self.submit_unload(name).result()

    def submit_unload(self, name: str) -> Future[None]:
        """Give up earlier loads of this model, and do `unload`; as `submit_load`."""
        was_loading = self._attempts.cancel(name, GIVEN_UP)
        try:
            return self._queue.submit(name, lambda: self._unload_named(name, was_loading=was_loading))
        except QueueClosedError as error:
            raise LoadError(f"failed to unload '{name[:MAX_NAME_SHOWN]}', {error}") from None

    def poll(self) -> None:
        """Scan the folders and follow their changes. Never raises for their content. Blocks: until all work is done."""
        for done in self.look():
            done.result()

    def look(self) -> list[Future[None]]:
        """Scan the folders, and return the work that this starts. Work in progress on a model goes first."""
        try:
            scan = self._registry.repository.scan()
        except RepositoryError as error:
            self._faults.note((str(error),))
            return []
        self._faults.note_scan(scan)
        entries = {entry.name: entry for entry in scan.models}
        # A folder that exists but is broken is not gone: the version loaded from it serves on.
        known = set(self._registry.versions()) | set(self._tried) | set(self._expected)
        gone = known - set(entries) - scan.broken - scan.empty
        works = {name: partial(self._drop, name) for name in gone}
        works |= {name: partial(self._follow, entry) for name, entry in entries.items()}
        idle = [name for name in works if self._queue.is_idle(name)]
        try:
            return [self._queue.submit(name, works[name], is_bounded=False) for name in idle]
        except QueueClosedError:
            return []

    def stop(self) -> None:
        """Give up every load: the server is shutting down. Blocks: no."""
        self._queue.close(lambda name: _load_failed(name, SHUTTING_DOWN))
        self._attempts.stop(SHUTTING_DOWN)

    def index(self, *, ready_only: bool = False) -> list[ModelState]:
        """Return the state of everything in the repositories and of everything that serves."""
        return index_of(self._registry, self._notes, ready_only=ready_only)

    def _load_named(self, attempt: Attempt, config_json: str | None, files: Mapping[str, bytes]) -> None:
        name = attempt.name
        try:
            config = None if config_json is None else _parse_json(config_json, name)
            if files:
                with unpacked(name, files, config) as entry:
                    self._load(attempt, entry, config)
            else:
                self._load(attempt, self._poll_for(name), config)
        except RepositoryError as error:
            raise _load_failed(name, str(error)) from None
        finally:
            self._attempts.end(attempt)

    def _poll_for(self, name: str) -> ModelEntry:
        """Return a model of the repository. Raises LoadError."""
        try:
            return self._registry.repository.model(name)
        except MissingRepositoryError:
            raise LoadError(f"failed to load '{name[:MAX_NAME_SHOWN]}', the model repository is gone") from None
        except RepositoryError as error:
            words = f"failed to load '{name[:MAX_NAME_SHOWN]}', failed to poll from model repository: {error}"
            raise LoadError(words) from None

    def _unload_named(self, name: str, *, was_loading: bool) -> None:
        try:
            self._registry.unload(name)
        except UnknownModelError as error:
            if not was_loading:
                raise LoadError(f"failed to unload '{name[:MAX_NAME_SHOWN]}', {error.message}") from None
        self._expected.pop(name, None)
        self._notes[name] = ("UNAVAILABLE", "unloaded")
        self._on_change(name, False)  # noqa: FBT003 - positional, as declared by on_change

    def _drop(self, name: str) -> None:
        """Unload models whose folders have gone."""
        self._tried.pop(name, None)
        self._loaded.pop(name, None)
        self._retries.forget(name)
        self._expected.pop(name, None)
        if name in self._registry.versions():
            self._unload_named(name, was_loading=True)
        else:
            self._notes.pop(name, None)
            self._on_change(name, False)  # noqa: FBT003

    def _follow(self, entry: ModelEntry) -> None:
        """Reload a model if its folder changed since the last attempt; keep the versions whose files serve already."""
        attempt = self._attempts.begin(entry.name)
        try:
            seen = fingerprints_of(entry)
            if seen == self._tried.get(entry.name):
                if not self._retries.is_due(entry.name):
                    return
            else:
                self._retries.forget(entry.name)
            self._tried[entry.name] = seen
            serving = self._loaded.get(entry.name, {})
            keep = [number for number in seen if serving.get(number) == seen[number]]
            self._load(attempt, entry, None, keep if "" in keep else ())
        except (RepositoryError, LoadError) as error:
            self._retries.note_failure(entry.name)
            if not isinstance(error, LoadError):
                log.warning("model not loaded", model=entry.name, error=str(error))
            return
        finally:
            self._attempts.end(attempt)
        self._retries.forget(entry.name)
        self._loaded[entry.name] = seen

    def _load(
        self, attempt: Attempt, entry: ModelEntry, config: ModelConfig | None, keep: Collection[str] = ()
    ) -> None:
        """Raise LoadError with a public message, caused by the exception, which the log reports."""
        self._notes[entry.name] = ("LOADING", "")
        try:
            self._loader.load(attempt, entry, config, keep)
        except Exception as error:
            reason = public_words(error, entry.name, entry.root)
            self._notes[entry.name] = ("UNAVAILABLE", reason)
            log.warning("model not loaded", model=entry.name, error=str(error))
            raise _load_failed(entry.name, reason) from error
        self._notes.pop(entry.name, None)
        self._on_change(entry.name, True)  # noqa: FBT003


def _load_failed(name: str, reason: str) -> LoadError:
    return LoadError(f"load failed for model '{name[:MAX_NAME_SHOWN]}': {reason}")  # clients match these words


def _parse_json(text: str, name: str) -> ModelConfig:
    try:
        config = json_format.Parse(text, ModelConfig())
    except json_format.ParseError as error:
        raise ConfigError(f"{name}/{CONFIG_NAME}: the configuration in the request: {str(error)[:200]}") from None
    config.name = config.name or name
    return config
