"""Ends messages that do not come to their end, and those beyond the limit. The upkeep's thread.

Theory of operation
    Ten times a second the received bytes of each connection are read from the kernel and compared with the bytes that
    became messages (`reading.Tally`). The message of a single call has begun when the call has. On a stream it has
    begun when bytes are here that became no message, for as long as that is so. After the deadline the call is ended
    with a status. So are the calls of those connections that have held the most for the longest, while all hold more
    than the budget; a connection on which that frees nothing, because the event loop is behind, is cut by its socket.

    Memory fills even while the loop is behind: so this is a thread, which needs the interpreter only for a moment. With
    hundreds of connections the moments add up. So each connection is checked less often then, unless the memory of the
    process has grown since.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.errors import MessageLateError, ReceptionFullError, ServiceError
from forebay_server.service.free_memory import resident_bytes
from forebay_server.service.frontend.connections import Address, Connection, Sockets
from forebay_server.service.frontend.reception.reading import Account, Reading, heaviest
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.settings import ServeSettings
from forebay_server.service.tuning import give_free_memory_back

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 0.1
CLOSE_LOOK_INTERVAL_S = 0.02  # while much is in reception: a fast network brings 100 MB in a tenth of a second
SPACING_NS = 700_000  # of checks, for each connection: one takes 14 us of the interpreter, so that all take 2 %
GIVE_BACK_INTERVAL_NS = 500_000_000
STRICT_TURN_NS = 1_000_000_000  # of a request, while others wait for the few places of a strict gate
NEVER_NS = 1 << 62
CUT_AFTER_S = 0.5  # time for calls to end before their connection is cut
ADVICE = {
    "full": "raise reception_bytes, at most to one frame for each open stream, or let them send smaller frames",
    "cut": "raise reception_bytes, and look for what keeps the event loop busy",
    "late": "raise message_deadline_s",
}


class ReceptionWatch:
    """See the module.

    Args:
        receptions: the event loop's side.
        settings: limits.
        clock: source of monotonic nanoseconds.
        loop: ends calls.
        addresses: of the server's listeners.

    Attributes:
        connections: number of open connections, without those of the unix socket.
        held_bytes: of messages in reception.
        ended: number of ended calls by reason: `late`, `full`; `cut`: connections.
    """

    def __init__(
        self,
        receptions: Receptions,
        settings: ServeSettings,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        addresses: Collection[str],
    ) -> None:
        self.connections = self.held_bytes = 0
        self.ended: Counter[str] = Counter()
        self._receptions = receptions
        self._deadline_ns = int(settings.message_deadline_s * 1e9)
        self._largest_bytes = settings.max_message_bytes
        self._window_bytes = settings.stream_window_bytes
        self._clock = clock
        self._loop = loop
        self._addresses = addresses
        self._sockets = Sockets()
        self._ending: dict[Account, tuple[int, list[Reading]]] = {}  # start of the ending, and the calls
        self._told = self.ended.copy()
        self._give_back_from_ns = 0
        self._calm_rss_bytes = 0  # of the process, at a time when it held little
        self._due_ns = 0  # the time of the next check, if the process's memory does not grow until then
        self._checked_rss_bytes = 0  # of the process, at the last check
        self._interval_s = LOOK_INTERVAL_S

    def look(self) -> float:
        """Check everything once, unless that is too early; return the number of seconds until the next call."""
        now_ns = self._clock.now_ns()
        if now_ns < self._due_ns and resident_bytes() - self._checked_rss_bytes < self._much_bytes:
            return self._interval_s
        try:
            found = {each.there: each for each in self._sockets.accepted_on(self._addresses, ())}
        except OSError:  # no descriptor is left for the scan
            return LOOK_INTERVAL_S
        self._check(found, now_ns)
        spacing_ns = SPACING_NS * len(found)
        if spacing_ns > LOOK_INTERVAL_S * 1e9:
            self._due_ns, self._checked_rss_bytes = now_ns + spacing_ns, resident_bytes()
        self._interval_s = CLOSE_LOOK_INTERVAL_S if self.held_bytes > self._much_bytes else LOOK_INTERVAL_S
        return self._interval_s

    @property
    def _much_bytes(self) -> int:
        return self._receptions.budget_bytes // 8

    def _check(self, found: Mapping[Address | None, Connection], now_ns: int) -> None:
        """Update the numbers of all connections, and end what is too late or too much."""
        self.connections = len(found) - (None in found)
        accounts = list(self._receptions.accounts.values())
        for account in accounts:
            connection = None if account.address is None else found.get(account.address)
            calls = tuple(account.calls)  # once: others begin meanwhile
            self._note(account, calls, connection, now_ns)
            self._end_late(account, calls, now_ns)
        self.held_bytes = sum(account.tally.held_bytes for account in accounts)
        for account in self._too_much(accounts):
            self._make_room(account, None if account.address is None else found.get(account.address), now_ns)
        if self.ended != self._told:
            ended = self.ended.copy()  # the loop counts on
            counts = Counter({why: count - self._told[why] for why, count in ended.items()})
            advice = "; ".join(words for why, words in ADVICE.items() if counts[why])
            log.warning(
                "messages that had not come to an end were given up",
                **counts,
                held_bytes=self.held_bytes,
                advice=f"if these clients were in order: {advice}",
            )
            self._told = ended
            self._give_back(now_ns)

    def _too_much(self, accounts: list[Account]) -> list[Account]:
        """Return the accounts that hold too much: by the estimate; or by memory, where a client hides its bytes."""
        budget = self._receptions.budget_bytes
        chosen = heaviest(accounts, budget, lambda each: each.tally.own_bytes, lambda each: each.tally.burden)
        if not chosen:
            room = budget * 3 // 2  # with the bytes that wait for the server to read them
            chosen = heaviest(accounts, room, lambda each: each.tally.held_bytes, lambda each: each.tally.burden)
        most = sum(account.tally.most_bytes for account in accounts)
        if chosen or budget // 4 <= most <= 2 * budget:
            return chosen
        rss_bytes = resident_bytes()
        if most < budget // 4:
            self._calm_rss_bytes = rss_bytes
        elif rss_bytes - self._calm_rss_bytes > 2 * budget:
            return heaviest(accounts, budget, lambda each: each.tally.most_bytes, lambda each: each.tally.most_bytes)
        return []

    def _give_back(self, now_ns: int) -> None:
        """Return the memory of ended calls, while more comes: its pieces between others are of little use to them."""
        grown_bytes = resident_bytes() - self._calm_rss_bytes
        if grown_bytes > 2 * self._receptions.budget_bytes and now_ns >= self._give_back_from_ns:
            self._give_back_from_ns = now_ns + GIVE_BACK_INTERVAL_NS
            give_free_memory_back()

    def _note(self, account: Account, calls: tuple[Reading, ...], connection: Connection | None, now_ns: int) -> None:
        """Update the numbers of a connection."""
        for reading in calls:
            if reading.brought_bytes < 0:
                reading.brought_bytes = account.tally.received_bytes
            if reading.seen != reading.reads or not reading.is_reading:
                reading.seen, reading.since_ns = reading.reads, now_ns
        received = None if connection is None else connection.received_bytes()
        if received is not None:
            account.tally.note(account, received, self._largest_bytes, self._window_bytes, now_ns)
        elif account.address is not None:  # the connection has ended, or the kernel does not report it
            account.abandoned.clear()
            account.tally.forget()
            if not calls:
                self._call(partial(self._receptions.forget, account))
        self._settle(account)

    def _settle(self, account: Account) -> None:
        """Check whether the calls that were to end have ended."""
        if account in self._ending and not any(reading in account.calls for reading in self._ending[account][1]):
            del self._ending[account]
            if not account.calls:  # otherwise the others' bytes count on; those of ended calls are forgiven
                account.tally.forget()

    def _end_late(self, account: Account, calls: tuple[Reading, ...], now_ns: int) -> None:
        usual_ns = self._deadline_ns or NEVER_NS
        gates = self._receptions.gate, self._receptions.health_gate
        are_waiting = any(gate.is_strict and gate.waiting_count for gate in gates)
        request_ns = min(usual_ns, STRICT_TURN_NS) if are_waiting else usual_ns
        stream_ns = usual_ns if account.tally.stuck_ns >= usual_ns else NEVER_NS
        late = {
            reading: deadline_ns
            for reading in calls
            if reading.is_reading
            and now_ns - reading.since_ns >= (deadline_ns := request_ns if reading.is_single else stream_ns)
        }
        if late:
            words = f"a message that was begun did not end within {min(late.values()) / 1e9:g} s"
            self._end(account, list(late), MessageLateError(words), "late", now_ns)

    def _make_room(self, account: Account, connection: Connection | None, now_ns: int) -> None:
        since_ns, ending = self._ending.get(account, (now_ns, []))
        if ending and now_ns - since_ns >= CUT_AFTER_S * 1e9 and connection is not None:
            connection.end()
            self.ended["cut"] += 1
            self._ending[account] = now_ns, ending  # not counted again until gRPC has closed it
        elif not ending:
            words = "the server receives more than it has room for; send this message again later"
            readings = [reading for reading in tuple(account.calls) if reading.is_reading or reading.is_single]
            readings = readings or list(account.calls)  # no reader is left, and there is no room for waiting bytes
            self._end(account, readings, ReceptionFullError(words, retry_after_ms=1000), "full", now_ns)

    def _end(self, account: Account, readings: list[Reading], error: ServiceError, why: str, now_ns: int) -> None:
        """Let the event loop end calls, unless their messages come meanwhile."""
        if account in self._ending or not readings:
            return
        self._ending[account] = now_ns, readings
        seen = [(reading, reading.reads) for reading in readings]

        def refuse() -> None:
            for reading, reads in seen:
                if reading.reads == reads:
                    reading.refuse(error)
                    self.ended[why] += 1
            readings[:] = [reading for reading in readings if reading.is_stopped]  # the others are spared

        self._call(refuse)

    def _call(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(callback)
