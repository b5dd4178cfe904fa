"""The users that may be asking, by gRPC's name of a peer; and those of them that are still connected.

A TCP peer is one user, unless another connection has the same name. A caller through the unix socket may be any of the
users that are connected to it now. Where several users may be asking, they have the rights that all of them have. Root
has every right: its presence takes no right from others, and the presence of others takes all of root's own.

Owner: the event loop's thread. Why: docs/adr/0092.
"""

from dataclasses import dataclass

from forebay_server.service.frontend.connections import UNIX_PEER, Connection, Sockets
from forebay_server.service.frontend.memory.users import ROOT, known, user_of_tcp

Users = frozenset[int]
_NOBODY: Users = frozenset()


@dataclass(slots=True, eq=False)
class Asker:
    """One peer.

    Attributes:
        connections: connections with its name.
        users: possible owners of these, by uid; empty if it is not on this machine, or unknown.
        region_count: open regions that it registered.
    """

    connections: frozenset[Connection]
    users: Users
    region_count: int = 0


class Askers:
    """See the module. Peers are kept for as long as a connection of theirs is open."""

    def __init__(self) -> None:
        self._sockets = Sockets()
        self._askers: dict[str, Asker] = {}

    def get(self, peer: str) -> Asker:
        """Return the current asker. Raises OSError if the kernel cannot be asked because no descriptor is left.

        Costs 5 µs for a TCP peer that was seen before, unless the server listens everywhere; else a scan of all
        descriptors.
        """
        asker = self._askers.get(peer)
        may_be_shared = peer.startswith(UNIX_PEER) or self._sockets.listens_everywhere
        if asker is not None and not may_be_shared and any(each.is_open for each in asker.connections):
            return asker
        connections = self._sockets.connections_of(peer)
        if asker is not None and asker.connections & connections:
            if asker.connections != connections:
                asker.connections, asker.users = connections, _users_of(connections)
            return asker
        asker = Asker(connections, _users_of(connections))
        if connections:
            self._askers[peer] = asker
        return asker

    def present(self) -> Users:
        """Forget peers that have gone, and return the users of the others."""
        users: set[int] = set()
        for peer, asker in list(self._askers.items()):
            if peer.startswith(UNIX_PEER):
                is_there = bool(self.get(peer).connections)
            else:
                is_there = any(connection.is_open for connection in asker.connections)
            if is_there:
                users |= asker.users
            else:
                del self._askers[peer]
        return frozenset(users)


def _users_of(connections: frozenset[Connection]) -> Users:
    users = {_user_of(connection) for connection in connections}
    if None in users:
        return _NOBODY
    others = frozenset(uid for uid in users if uid is not None and uid != ROOT)
    return others or frozenset({ROOT} if users else ())


def _user_of(connection: Connection) -> int | None:
    if connection.uid is not None:
        return known(connection.uid)
    if not connection.is_local or connection.there is None:
        return None
    return user_of_tcp(connection.there, connection.here)
