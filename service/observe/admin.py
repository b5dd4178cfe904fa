"""The admin port's HTTP/1.1: GET only, one request per connection. `service.observe.site` defines the pages.

Not a web server: every other request is a 404, a request has at most 8 KiB and five seconds, and connections are few.
When there are too many, the oldest connection without a request makes room, so that slow clients never keep a probe
waiting, and then the oldest whose answer is still being sent. Readers of events are limited where they subscribe. The
port listens on loopback by default, and reveals only what a client of the service could ask for. On loopback it answers
requests that name loopback only: otherwise a page of another site, in a browser on this machine, could give its own
name this address and read the answers. A reader that takes nothing for five seconds is cut; at most one message and the
socket's buffer wait for it meanwhile.

Owner: the thread of `service.observe.admin_thread`, never that of the data path.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import parse_qsl

import structlog

from forebay_server.service.settings import is_loopback

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 64
CHUNKS_PER_WRITE = 64
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
PLAIN = "text/plain; charset=utf-8"


PAGE_HEADERS = (
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
)
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: str
    content_type: str = PLAIN


@dataclass(frozen=True, slots=True)
class Download:
    """An answer made in parts while it is sent, for the browser to save."""

    chunks: Generator[str, None, None]
    file_name: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Events:
    """Server-sent events until the reader goes away."""

    messages: AsyncGenerator[str, None]


Answer = Page | Download | Events
Handler = Callable[[Query], Answer]


class AdminServer:
    """See the module.

    Args:
        pages: answers to GET by path.
    """

    def __init__(self, pages: Mapping[str, Handler]) -> None:
        self._pages = pages
        self._is_local = False
        self._server: asyncio.Server | None = None
        # By the task that serves each, oldest first; readers of events are in neither of the first two.
        self._asking: dict[asyncio.Task[None], None] = {}
        self._answering: dict[asyncio.Task[None], None] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Listen and return host:port with the real port. Raises OSError."""
        self._is_local = is_loopback(host)
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy: this runs in one
        self._connections.add(task)
        self._asking[task] = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                answer, is_head = await self._answer(reader)
            del self._asking[task]
            if not isinstance(answer, Events):
                self._answering[task] = None
            await _send(writer, answer, is_head=is_head)
            await _close(writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end went away or is too slow, the connection made room, or the server closes
        finally:
            self._forget(task)
            writer.transport.abort()  # discards the rest for a reader that takes nothing

    def _make_room(self) -> bool:
        """Cut the least needed connection; return whether there is one."""
        for candidates in (self._asking, self._answering):
            for oldest in candidates:
                self._forget(oldest)
                oldest.cancel()
                return True
        return False

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._connections.discard(task)
        self._asking.pop(task, None)
        self._answering.pop(task, None)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Page(400, "the request is too long\n"), False
        first, *fields = head.decode("latin-1").split("\r\n")
        if self._is_local and not all(is_loopback(host) for host in _hosts(fields)):
            return Page(403, "this port answers to localhost and its addresses only\n"), False
        return self._page(first.split(" "))

    def _page(self, words: list[str]) -> tuple[Answer, bool]:
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, "no HTTP request\n"), False
        method, (path, _, query) = words[0], words[1].partition("?")
        if method not in ("GET", "HEAD"):
            return Page(405, "only GET\n"), False
        make = self._pages.get(path)
        if make is None:
            return Page(404, f"there are {', '.join(self._pages)}\n"), method == "HEAD"
        try:
            return make(dict(parse_qsl(query, max_num_fields=16))), method == "HEAD"
        except ValueError as error:
            return Page(400, f"{error}\n"), method == "HEAD"
        except Exception:
            log.exception("admin page failed", path=path)
            return Page(503, "internal error; the server's log has the details\n"), method == "HEAD"


def _hosts(fields: list[str]) -> list[str]:
    """Return the hosts that the fields of a request name, without the port."""
    values = [value.strip() for name, _, value in (field.partition(":") for field in fields) if name.lower() == "host"]
    return [re.sub(r":\d*$", "", value.lower()) for value in values]


async def _send(writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool) -> None:
    match answer:
        case Page():
            body = answer.body.encode()
            await _write(writer, _head(answer.status, answer.content_type, f"Content-Length: {len(body)}\r\n"))
            if not is_head:
                await _write(writer, body)
        case Download():
            disposition = f'Content-Disposition: attachment; filename="{answer.file_name}"\r\n'
            await _write(writer, _head(200, answer.content_type, disposition))
            with contextlib.closing(answer.chunks) as chunks:
                while not is_head and (some := list(islice(chunks, CHUNKS_PER_WRITE))):
                    await _write(writer, "".join(some).encode())
        case Events():
            await _write(writer, _head(200, "text/event-stream; charset=utf-8"))
            if not is_head:
                async with contextlib.aclosing(answer.messages) as messages:
                    async for message in messages:
                        await _write(writer, message.encode())


def _head(status: int, content_type: str, more: str = "") -> bytes:
    start = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
    return f"{start}{more}{PAGE_HEADERS}Connection: close\r\n\r\n".encode()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close once everything is sent. Raises TimeoutError for a reader that does not take the rest."""
    writer.close()
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        await writer.wait_closed()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait until the socket has room again. Raises TimeoutError if the reader takes nothing."""
    writer.write(data)
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        await writer.drain()
