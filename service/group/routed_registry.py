"""The model versions of several engine processes, found by name as in a server of one process.

Versions with one name and number that are the same are one version here (`routed_version`). After a reload the first
engine process that publishes the new one begins it, and the others join it as they follow.

Thread: the event loop's, except the methods that only read (any): they read one mapping that is swapped whole.
"""

from collections.abc import Callable, Mapping

from forebay_server.service.group.remote_registry import RemoteRegistry
from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.group.routed_version import RoutedVersion
from forebay_server.service.models.served import acquire_version, find_version


class RoutedRegistry:
    """Implements service.models.served.ServedModels.

    Args:
        front_end: index of this process.
        on_retired: called with a retired version, to send its users away.
    """

    def __init__(self, front_end: int, on_retired: Callable[[RoutedVersion], None]) -> None:
        self._front_end = front_end
        self._on_retired = on_retired
        self._serving: Mapping[str, Mapping[str, RoutedVersion]] = {}
        self._every: list[RoutedVersion] = []  # with members
        self._of_engines: dict[int, RemoteRegistry] = {}
        self._engine_of: dict[RemoteVersion, int] = {}

    def registry_of(self, engine: int) -> RemoteRegistry:
        """Return a new registry for the versions of one engine process, which joins them here."""
        registry = self._of_engines[engine] = RemoteRegistry(self.leave, lambda member: self.join(engine, member))
        return registry

    def join(self, engine: int, member: RemoteVersion) -> None:
        """Let a version of an engine process serve, with those of the others or in their place."""
        self._engine_of[member] = engine
        self._every = [each for each in self._every if each.members]
        current = self._serving.get(member.name, {}).get(member.version)
        if current is not None and current.takes(member) and engine not in map(self._engine_of.get, current.members):
            current.add(member)
            return
        version = RoutedVersion(member, self._front_end)
        self._every.append(version)
        serving = {**self._serving.get(member.name, {}), member.version: version}
        rising = {number: serving[number] for number in sorted(serving, key=int)}
        self._serving = {**self._serving, member.name: rising}
        if current is not None:
            self._retire(current)

    def leave(self, member: RemoteVersion) -> None:
        """A version of an engine process takes no new users, or is lost."""
        self._engine_of.pop(member, None)
        for version in [each for each in self._every if member in each.members]:
            if len(version.members) > 1 or member.is_lost:
                version.remove(member)
            if not version.is_retired and (not version.members or version.members == (member,)):
                self._stop_serving(version)
                self._retire(version)
                self._fall_back(version)

    def _fall_back(self, version: RoutedVersion) -> None:
        """Serve what other engine processes still have in its place: one that could not follow a reload, say."""
        for member, engine in list(self._engine_of.items()):
            if (member.name, member.version) == (version.name, version.version):
                self.join(engine, member)

    def _stop_serving(self, version: RoutedVersion) -> None:
        left = {key: each for key, each in self._serving.get(version.name, {}).items() if each is not version}
        others = {name: versions for name, versions in self._serving.items() if name != version.name}
        self._serving = {**others, version.name: left} if left else others

    def _retire(self, version: RoutedVersion) -> None:
        self._on_retired(version)
        version.retire()

    def find(self, name: str, version: str) -> RoutedVersion:
        """See `ServedModels.find`."""
        return find_version(self._serving, name, version)

    def acquire(self, name: str, version: str) -> RoutedVersion:
        """See `ServedModels.acquire`."""
        return acquire_version(self.find, name, version)

    def known_versions(self, name: str) -> frozenset[str] | None:
        """See `ServedModels.known_versions`."""
        known = [registry.known_versions(name) for registry in self._of_engines.values()]
        found = [versions for versions in known if versions is not None]
        return frozenset().union(*found) if found else None

    def versions(self) -> dict[str, list[str]]:
        """See `ServedModels.versions`."""
        return {name: list(versions) for name, versions in self._serving.items()}

    def published(self) -> list[RemoteVersion]:
        """Return every version of each engine process that serves, or is retired and has users."""
        return [version for registry in self._of_engines.values() for version in registry.published()]
