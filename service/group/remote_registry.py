"""The model versions that the engine process has published, found by name as in a server of one process.

Thread: the event loop's, except the methods that only read (any): they read one mapping that is swapped whole.
"""

from collections.abc import Callable, Mapping

from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.models.served import acquire_version, find_version


class RemoteRegistry:
    """Implements service.models.served.ServedModels.

    Args:
        on_retired: called with a retired version, to send its users away.
        on_published: called with a version that serves from now on.
    """

    def __init__(
        self,
        on_retired: Callable[[RemoteVersion], None],
        on_published: Callable[[RemoteVersion], None] = lambda _: None,
    ) -> None:
        self._serving: Mapping[str, Mapping[str, RemoteVersion]] = {}
        self._known: Mapping[str, frozenset[str]] = {}
        self._by_number: dict[int, RemoteVersion] = {}
        self._on_retired = on_retired
        self._on_published = on_published

    def publish(self, version: RemoteVersion) -> None:
        """Let a version serve, in the place of one that has its name and number."""
        self._by_number[version.number] = version
        serving = {**self._serving.get(version.name, {}), version.version: version}
        rising = {number: serving[number] for number in sorted(serving, key=int)}
        self._serving = {**self._serving, version.name: rising}
        self._on_published(version)

    def retire(self, number: int) -> None:
        """Let a version, by its number in descriptors, take no new users."""
        version = self._by_number.get(number)
        if version is None:
            return
        left = {key: each for key, each in self._serving.get(version.name, {}).items() if each is not version}
        others = {name: versions for name, versions in self._serving.items() if name != version.name}
        self._serving = {**others, version.name: left} if left else others
        self._on_retired(version)
        version.retire()

    def forget(self, version: RemoteVersion) -> None:
        """Let go of a retired version that has no users."""
        self._by_number.pop(version.number, None)

    def know(self, versions: Mapping[str, frozenset[str]]) -> None:
        """Take the versions of every model that serve, served or failed to load."""
        self._known = versions

    def find(self, name: str, version: str) -> RemoteVersion:
        """See `ServedModels.find`."""
        return find_version(self._serving, name, version)

    def acquire(self, name: str, version: str) -> RemoteVersion:
        """See `ServedModels.acquire`."""
        return acquire_version(self.find, name, version)

    def known_versions(self, name: str) -> frozenset[str] | None:
        """See `ServedModels.known_versions`."""
        return self._known.get(name)

    def versions(self) -> dict[str, list[str]]:
        """See `ServedModels.versions`."""
        return {name: list(versions) for name, versions in self._serving.items()}

    def published(self) -> list[RemoteVersion]:
        """Return every version that serves, or is retired and has users."""
        return list(self._by_number.values())
