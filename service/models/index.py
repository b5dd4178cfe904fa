"""The index of models that clients read: the state of everything in the repositories and of everything that serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.repository import RepositoryError

State = Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING", ""]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the index; version and state are empty for a model that was never loaded."""

    name: str
    version: str
    state: State
    reason: str = ""


def index_of(
    registry: ModelRegistry, notes: Mapping[str, tuple[State, str]], *, ready_only: bool = False
) -> list[ModelState]:
    """Return the index, in the order of names and versions. Blocks: for a scan of the folders, unless `ready_only`.

    Args:
        registry: has the serving versions and the repository.
        notes: state and reason by model, of models that are loading or could not be loaded; written by other threads.
        ready_only: leave out models that do not serve.
    """
    serving = registry.versions()
    states = [ModelState(name, number, "READY") for name, numbers in serving.items() for number in numbers]
    if not ready_only:
        states += [ModelState(name, number, "UNLOADING") for name, number in registry.unloading()]
        try:
            names = {entry.name for entry in registry.repository.scan().models}
        except RepositoryError:
            names = set()
        notes = dict(notes)
        for name in names | set(notes):
            state, reason = notes.get(name, ("", ""))
            if name not in serving or state:
                states.append(ModelState(name, "", state, reason))
    return sorted(states, key=lambda state: (state.name, state.version))
