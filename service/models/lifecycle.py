"""Loading and unloading while serving: the three control modes, the state of every model, and the watch on the folders.

*none*: everything is loaded at start and stays. *explicit*: clients load and unload; at start only what the settings
name is loaded. *poll*: the folders are looked at from time to time; what is new or changed is loaded, what has gone is
unloaded. A model that cannot be loaded never takes the place of one that serves.

Loads and unloads of one model come one after the other, those of different models side by side (`load_queue`). An
unload gives up loads of its model that were asked for before it.

Thread: any for every method. Those that return a Future do not block; `start`, `load`, `unload` and `poll` block until
all is done. What belongs to one model is written by the one thread that is at work on it.
"""

import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog
from google.protobuf import json_format

from engines.errors import EngineError
from forebay.wire.model_config_pb2 import ModelConfig
from service.errors import UnknownModelError
from service.models.attempts import Attempt, Attempts
from service.models.config_text import ConfigError
from service.models.fingerprints import Fingerprints, fingerprints_of
from service.models.load_queue import LoadQueue, QueueClosedError
from service.models.loader import ModelLoader
from service.models.registry import ModelRegistry
from service.models.repository import CONFIG_NAME, ModelEntry, Repository, RepositoryError, Scan

log = structlog.get_logger(__name__)

ControlMode = Literal["none", "explicit", "poll"]
State = Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING", ""]
ALL_MODELS = "*"
MOST_WORDS = 2000  # characters of a reason: it travels in headers, of which gRPC takes 8 KiB, percent-encoded
GIVEN_UP = "unloaded while it was loading"
SHUTTING_DOWN = "the server is shutting down"
_FOLDERS = re.compile(r"""(?<=['"])/(?:[^/'"\n]*/)*|(?<![\w.])/(?:(?:[^/:'"\n]|:(?!\s))*/)*""")
"""Up to the closing quote, or else to the end of the part of a sentence: names of folders may have spaces."""


class LoadError(Exception):
    """A model cannot be loaded or unloaded; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the index; version and state are empty for a model that nobody ever loaded."""

    name: str
    version: str
    state: State
    reason: str = ""


class ModelLifecycle:
    """See the module.

    Args:
        registry: holds what serves.
        loader: loads into it.
        attempts: at loading, with the time that each has.
        mode: who decides.
        wanted: models to load at start in mode explicit; `*` for all.
        on_change: told a model's name and whether it serves now. Thread: the caller's.
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
        self._notes: dict[str, tuple[State, str]] = {}  # by model: LOADING, or why it is UNAVAILABLE
        self._loaded: dict[str, Fingerprints] = {}  # poll: of what serves, as it was just before it was loaded
        self._tried: dict[str, Fingerprints] = {}  # poll: of what was last tried, whatever came of it
        self._told: frozenset[str] = frozenset()  # what the last look found wrong. Thread: of start, then of polling

    def start(self) -> None:
        """Load what is to be served from the start, one after the other, without rehearsals: the operator's own models.

        Raises RepositoryError or EngineError.
        """
        repository = self._registry.repository
        if self.mode == "explicit" and ALL_MODELS not in self._wanted:
            entries = [repository.model(name) for name in self._wanted]
        else:
            scan = self._scan(repository)
            if scan.problems:
                raise RepositoryError(scan.problems[0])
            entries = list(scan.models)
        for entry in entries:
            seen = fingerprints_of(entry)
            attempt = self._attempts.begin(entry.name)
            self._loader.load(attempt, entry, is_rehearsed=False)
            self._attempts.end(attempt)
            self._tried[entry.name] = self._loaded[entry.name] = seen

    def load(self, name: str, config_json: str | None = None) -> None:
        """Load a model, or load it again. Raises LoadError; what was served before goes on."""
        self.submit_load(name, config_json).result()

    def submit_load(self, name: str, config_json: str | None = None) -> Future[None]:
        """Do `load` once everything that was asked of this model before is done. Raises LoadError if too much waits."""
        attempt = self._attempts.begin(name)
        try:
            return self._queue.submit(name, lambda: self._load_named(attempt, config_json))
        except QueueClosedError as error:
            self._attempts.end(attempt)
            raise LoadError(f"failed to load '{name[:128]}', {error}") from None

    def unload(self, name: str) -> None:
        """Unload a model: no new requests, and it is closed when the last one is answered. Raises LoadError."""
        self.submit_unload(name).result()

    def submit_unload(self, name: str) -> Future[None]:
        """Give up loads of this model that were asked for before, and do `unload`; as `submit_load`."""
        was_loading = self._attempts.cancel(name, GIVEN_UP)
        try:
            return self._queue.submit(name, lambda: self._unload_named(name, was_loading=was_loading))
        except QueueClosedError as error:
            raise LoadError(f"failed to unload '{name[:128]}', {error}") from None

    def poll(self) -> None:
        """Look at the folders and follow them. Never raises for what is in them. Blocks: until all has been done."""
        for done in self.look():
            done.result()

    def look(self) -> list[Future[None]]:
        """Look at the folders, and return what is under way because of it. What is at work on a model goes first."""
        try:
            scan = self._scan(self._registry.repository)
        except RepositoryError as error:
            self._tell((str(error),))
            return []
        entries = {entry.name: entry for entry in scan.models}
        # A folder that is there and broken is not gone: what was served from it serves on.
        gone = (set(self._registry.versions()) | set(self._tried)) - set(entries) - scan.broken
        works = {name: partial(self._drop, name) for name in gone}
        works |= {name: partial(self._follow, entry) for name, entry in entries.items()}
        try:
            return [self._queue.submit(name, work) for name, work in works.items() if self._queue.is_idle(name)]
        except QueueClosedError:
            return []

    def stop(self) -> None:
        """Give up every load: the server is shutting down. Blocks: no."""
        self._queue.close()
        self._attempts.stop(SHUTTING_DOWN)

    def index(self, *, ready_only: bool = False) -> list[ModelState]:
        """Return the state of everything in the repositories and of everything that serves."""
        serving = self._registry.versions()
        states = [ModelState(name, number, "READY") for name, numbers in serving.items() for number in numbers]
        if not ready_only:
            states += [ModelState(name, number, "UNLOADING") for name, number in self._registry.unloading()]
            try:
                names = {entry.name for entry in self._registry.repository.scan().models}
            except RepositoryError:
                names = set()
            notes = dict(self._notes)
            for name in names | set(notes):
                state, reason = notes.get(name, ("", ""))
                if name not in serving or state:
                    states.append(ModelState(name, "", state, reason))
        return sorted(states, key=lambda state: (state.name, state.version))

    def _scan(self, repository: Repository) -> Scan:
        """Look at the folders, and log what is wrong with them unless the last look found the same."""
        scan = repository.scan()
        versions = (line for entry in scan.models for line in entry.passed_over)
        self._tell((*scan.problems, *scan.passed_over, *versions))
        return scan

    def _tell(self, lines: tuple[str, ...]) -> None:
        for line in lines:
            if line not in self._told:
                log.warning("model repository", detail=line)
        self._told = frozenset(lines)

    def _load_named(self, attempt: Attempt, config_json: str | None) -> None:
        name = attempt.name
        try:
            entry = self._registry.repository.model(name)
            config = None if config_json is None else _parse_json(config_json, name)
            self._load(attempt, entry, config)
        except RepositoryError as error:
            raise LoadError(f"failed to load '{name[:128]}', {error}") from None
        finally:
            self._attempts.end(attempt)

    def _unload_named(self, name: str, *, was_loading: bool) -> None:
        try:
            self._registry.unload(name)
        except UnknownModelError as error:
            if not was_loading:
                raise LoadError(f"failed to unload '{name[:128]}', {error.message}") from None
        self._notes[name] = ("UNAVAILABLE", "unloaded")
        self._on_change(name, False)  # noqa: FBT003 - as the attribute says

    def _drop(self, name: str) -> None:
        """Unload what has gone from the repositories."""
        self._tried.pop(name, None)
        self._loaded.pop(name, None)
        if name in self._registry.versions():
            self._unload_named(name, was_loading=True)

    def _follow(self, entry: ModelEntry) -> None:
        """Load a model anew if its folder is not what was last tried; keep the versions whose files serve already."""
        attempt = self._attempts.begin(entry.name)
        try:
            seen = fingerprints_of(entry)
            if seen == self._tried.get(entry.name):
                return
            self._tried[entry.name] = seen
            serving = self._loaded.get(entry.name, {})
            keep = [number for number in seen if serving.get(number) == seen[number]]
            self._load(attempt, entry, None, keep if "" in keep else ())
        except (RepositoryError, LoadError) as error:
            log.warning("model not loaded", model=entry.name, error=str(error.__cause__ or error))
            return
        finally:
            self._attempts.end(attempt)
        self._loaded[entry.name] = seen

    def _load(
        self, attempt: Attempt, entry: ModelEntry, config: ModelConfig | None, keep: Collection[str] = ()
    ) -> None:
        """Raise LoadError with words for everybody, caused by what happened."""
        self._notes[entry.name] = ("LOADING", "")
        try:
            self._loader.load(attempt, entry, config, keep)
        except Exception as error:
            reason = _public(error, entry)
            self._notes[entry.name] = ("UNAVAILABLE", reason)
            raise LoadError(f"failed to load '{entry.name}', {reason}") from error
        self._notes.pop(entry.name, None)
        self._on_change(entry.name, True)  # noqa: FBT003


def _public(error: Exception, entry: ModelEntry) -> str:
    """Return the words of an error without the folders of this machine; libraries name some in their messages."""
    if not isinstance(error, RepositoryError | EngineError):
        log.error("model not loaded", model=entry.name, exc_info=error)  # our bug, or a library's
        return "internal error; the server's log has the details"
    text = str(error).replace(f"{entry.root}/", "").replace(str(entry.root), "the repository")
    return _FOLDERS.sub("", text)[:MOST_WORDS]


def _parse_json(text: str, name: str) -> ModelConfig:
    try:
        config = json_format.Parse(text, ModelConfig())
    except json_format.ParseError as error:
        raise ConfigError(f"{name}/{CONFIG_NAME}: the configuration in the request: {str(error)[:200]}") from None
    config.name = config.name or name
    return config
