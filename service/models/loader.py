"""Loads a model so that the load can be given up: rehearsed in a separate process, then opened here within its time.

A model that hangs, crashes or takes too much memory does so in the rehearsal, whose process can be killed. A model that
passes is opened in this process, on a thread that is abandoned if it hangs after all: the model is not loaded then, and
everything else goes on.

Thread: `load` by one thread for each model; all other methods by any. A lock guards the counts.
"""

import threading
from collections.abc import Callable, Collection, Sequence

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.clock import Clock
from forebay_server.service.models.attempts import Attempt, Opening
from forebay_server.service.models.registry import ModelRegistry, OpenedModel
from forebay_server.service.models.repository import ModelEntry

Rehearse = Callable[[ModelEntry, ModelConfig | None, Sequence[str], Attempt], None]
"""Opens a model's versions, except those that serve already, and closes them. Raises the exceptions of opening."""


class ModelLoader:
    """See the module.

    Args:
        registry: holds the serving versions.
        rehearse: None to open models here at once.
    """

    def __init__(self, registry: ModelRegistry, rehearse: Rehearse | None = None) -> None:
        self._registry = registry
        self._rehearse = rehearse
        self._lock = threading.Lock()
        self._openings: list[Opening[OpenedModel]] = []

    def load(
        self,
        attempt: Attempt,
        entry: ModelEntry,
        config: ModelConfig | None = None,
        keep: Collection[str] = (),
        *,
        is_rehearsed: bool = True,
    ) -> None:
        """Load a model, or load it again; arguments as `ModelRegistry.open`. Blocks: until it serves.

        The time limit counts for the rehearsal, and again for opening the model here.

        Raises:
            RepositoryError, EngineError: the model cannot be served, or not in time; the version that served before
                goes on.
        """
        attempt.restart()
        if self._rehearse is not None and is_rehearsed:
            self._rehearse(entry, config, self._registry.kept(entry.name, keep), attempt)
            attempt.restart()
        opening = Opening(attempt, lambda: self._registry.open(entry, config, keep), OpenedModel.discard)
        with self._lock:
            self._openings = [*(earlier for earlier in self._openings if earlier.is_alive()), opening]
            opening.start()
        self._registry.publish(opening.wait())

    def wait_ended(self, timeout_s: float, clock: Clock) -> bool:
        """Return whether every thread that ever opened a model here has ended within `timeout_s`."""
        until_ns = clock.now_ns() + int(timeout_s * 1e9)
        with self._lock:
            openings = list(self._openings)
        for opening in openings:
            opening.join(max(0.0, (until_ns - clock.now_ns()) / 1e9))
        return not any(opening.is_alive() for opening in openings)
