"""Several servers behind one address: which of them gets a stream's next call.

Theory of operation
    An address is a list, "a:8001,b:8001,unix:/run/c.sock". A host may have several records, each of them a server.
    Of the servers that are not left out, two are drawn, and the one with fewer open calls of this client is taken:
    the power of two choices. Draws keep many clients from choosing the same server at the same time; the comparison
    keeps one client's streams even.

    A server that failed, or that sends its streams elsewhere, is left out for a while; each further failure doubles the
    time. Failures that come while a server is left out do not count: a dead server breaks all its streams at once.
    Where all are left out, any may be taken, because the time is a guess.

Pure: neither sockets nor clock. Owner of `Addresses`: the thread that makes the calls.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

FIRST_LEFT_OUT_S = 1.0  # after one failure: a restart takes about that long
LONGEST_LEFT_OUT_S = 10.0  # after many: a server that is back waits at most this long for its first stream
GOING_LEFT_OUT_S = 5.0  # after its word that streams should go elsewhere: most drains and restarts are over then
_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "ipv4:", "ipv6:", "dns:", "xds:", "google-c2p:")  # of gRPC's targets
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/\[\],]+):(?P<port>[0-9]{1,5})")

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]  # as socket.getaddrinfo returns it


@dataclass(frozen=True, slots=True)
class Address:
    """One server.

    Attributes:
        target: as gRPC takes it.
        name: host:port whose record the target is, which certificates and proxies go by; empty for the target itself.
    """

    target: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.target} ({self.name})" if self.name else self.target


def parse_addresses(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the entries of a list, each once and in its order, and those that were given more than once.

    Raises:
        ValueError: an entry is no address; the message names it.
    """
    entries: list[str] = []
    repeated: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        _check(entry, text)
        (repeated if entry in entries else entries).append(entry)
    return tuple(entries), tuple(dict.fromkeys(repeated))


def host_to_resolve(entry: str) -> tuple[str, int] | None:
    """Return host and port of an entry whose records have to be looked up; None for any other."""
    match = _HOST_AND_PORT.fullmatch(entry)
    if match is None:
        return None
    host = match["host"]
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host, int(match["port"])
    return None


def records_of(entry: str, infos: Sequence[AddressInfo]) -> tuple[Address, ...]:
    """Return the servers of an entry out of its records.

    One record of each family is one server, which gRPC finds by the name itself. Of a name with more, the records of
    one family count, because both families lead to the same servers: the larger, or the one that the system prefers.

    Args:
        entry: host:port.
        infos: of `getaddrinfo`; empty if the name could not be resolved: gRPC may know more, or has the right words.
    """
    by_family: dict[int, dict[str, None]] = {}
    for family, *_, place in infos:
        by_family.setdefault(family, {})[str(place[0])] = None
    best = max(by_family, key=lambda family: len(by_family[family]), default=None)
    if best is None or len(by_family[best]) < 2:
        return (Address(entry),)
    port = entry.rpartition(":")[2]
    hosts = (f"[{host}]" if best == socket.AF_INET6 else host for host in by_family[best])
    return tuple(Address(f"{host}:{port}", entry) for host in hosts)


@dataclass(slots=True)
class _Record:
    """The state of one server.

    Attributes:
        calls: open calls of this client.
        failures: in a row, at most one for each time that the server was left out.
        left_out_until_ns: 0 for a server that never failed.
    """

    calls: int = 0
    failures: int = 0
    left_out_until_ns: int = 0


@dataclass(slots=True, eq=False)
class Addresses:
    """See the module's theory of operation.

    Attributes:
        draw: source of uniform numbers from 0 to 1.
    """

    draw: Callable[[], float]
    _records: dict[Address, _Record] = field(default_factory=dict)
    _current: tuple[Address, ...] = ()

    @property
    def current(self) -> tuple[Address, ...]:
        """The servers that may be chosen."""
        return self._current

    def replace(self, addresses: Sequence[Address]) -> None:
        """Choose among these servers from now on; those that stay keep their state."""
        self._current = tuple(dict.fromkeys(addresses))
        kept = {address: record for address, record in self._records.items() if record.calls}
        self._records = kept | {address: self._records.get(address, _Record()) for address in self._current}

    def choose(self, now_ns: int, avoid: Collection[Address] = (), wanted: Address | None = None) -> Address:
        """Return the server for the next call, and count the call.

        Args:
            now_ns: the current time.
            avoid: servers that this stream should not get; ignored if there is no other.
            wanted: the server for it, left out or not, if it may be chosen.
        """
        candidates = self._ready(now_ns, avoid) or [each for each in self._current if each not in avoid]
        if wanted is not None and wanted in self._current and wanted not in avoid:
            candidates = [wanted]
        address = self._lighter_of_two(candidates or list(self._current))
        self._records[address].calls += 1
        return address

    def is_known(self, address: Address) -> bool:
        """Whether the server may be chosen, or has calls from the time when it could be."""
        return address in self._records

    def has_ready(self, now_ns: int, avoid: Collection[Address] = ()) -> bool:
        """Whether a server that is not in `avoid` is not left out."""
        return bool(self._ready(now_ns, avoid))

    def has_other(self, avoid: Collection[Address]) -> bool:
        """Whether there is a server that is not in `avoid`, left out or not."""
        return any(address not in avoid for address in self._current)

    def ended(self, address: Address) -> None:
        """Count the end of a call."""
        record = self._records[address]
        record.calls -= 1
        if not record.calls and address not in self._current:
            del self._records[address]

    def opened(self, address: Address) -> None:
        """Forget the failures of a server, because it opened a stream."""
        if (record := self._records.get(address)) is not None:
            record.failures = record.left_out_until_ns = 0

    def failed(self, address: Address, now_ns: int, hint_ms: int = 0) -> float:
        """Leave a server out; return for how many seconds, 0 if it was left out already.

        Args:
            address: of the call that failed.
            now_ns: the current time.
            hint_ms: the server's advice when to come back.
        """
        record = self._records.get(address)
        if record is None or now_ns < record.left_out_until_ns:
            return 0.0
        bound_s = min(LONGEST_LEFT_OUT_S, FIRST_LEFT_OUT_S * 2.0 ** min(record.failures, 32))
        record.failures += 1
        return self._leave_out(record, now_ns, max(bound_s * (1 + self.draw()) / 2, hint_ms / 1e3))

    def going(self, address: Address, now_ns: int) -> float:
        """Leave a server out because it sends streams elsewhere; return for how many seconds, 0 if it already was."""
        record = self._records.get(address)
        if record is None or now_ns < record.left_out_until_ns:
            return 0.0
        return self._leave_out(record, now_ns, GOING_LEFT_OUT_S)

    def _leave_out(self, record: _Record, now_ns: int, seconds: float) -> float:
        record.left_out_until_ns = now_ns + round(seconds * 1e9)
        return seconds

    def _ready(self, now_ns: int, avoid: Collection[Address]) -> list[Address]:
        return [
            address
            for address in self._current
            if address not in avoid and now_ns >= self._records[address].left_out_until_ns
        ]

    def _lighter_of_two(self, candidates: list[Address]) -> Address:
        """Draw two different servers and return the one with fewer calls; of two equals, the first drawn."""
        first = candidates.pop(self._index(len(candidates)))
        if not candidates:
            return first
        second = candidates[self._index(len(candidates))]
        return second if self._records[second].calls < self._records[first].calls else first

    def _index(self, count: int) -> int:
        return min(int(self.draw() * count), count - 1)  # a draw of 1.0 is allowed


def _check(entry: str, text: str) -> None:
    if not entry:
        raise ValueError(
            f"the address {text!r} has an empty entry; give host:port or unix:PATH, with commas in between"
        )
    if entry.startswith(_SCHEMES) and entry not in _SCHEMES:
        return
    match = _HOST_AND_PORT.fullmatch(entry)
    if match is not None and 0 < int(match["port"]) < 65536:
        return
    raise ValueError(f"{entry!r} is no address; give {_likely(entry)}, or unix:PATH")


def _likely(entry: str) -> str:
    """Return what the user may have meant, in words."""
    scheme, has_scheme, rest = entry.partition("://")
    if (
        has_scheme
        and scheme in {"http", "https", "grpc", "grpcs", "tcp"}
        and _HOST_AND_PORT.fullmatch(rest.rstrip("/"))
    ):
        return f"{rest.rstrip('/')}, without {scheme}://"
    if _HOST_AND_PORT.fullmatch(f"{entry}:1"):
        return f"host:port, such as {entry}:8001"
    parts = re.split(r"[;\s]+", entry)
    if len(parts) > 1 and all(_HOST_AND_PORT.fullmatch(part) for part in parts):
        return "several servers with commas in between"
    if re.fullmatch(r"[^\s:]+:[0-9]+", entry):
        return "a port from 1 to 65535"
    host, _, port = entry.rpartition(":")
    for likely in (f"[{host}]:{port}", f"[{entry}]:8001"):
        if _HOST_AND_PORT.fullmatch(likely) and _is_ipv6(likely[1 : likely.index("]")]):
            return f"an IPv6 address in brackets, such as {likely}"
    return "host:port, such as 127.0.0.1:8001"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
