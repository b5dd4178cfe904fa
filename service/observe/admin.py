"""The admin port: GET /metrics, /healthz and /readyz over plain HTTP/1.1, one request per connection.

Not a web server: everything else is 404, a request has 8 KiB and five seconds, and connections are few. It listens on
loopback unless the settings say otherwise, and tells nothing that a client of the service could not ask for.

Owner: the event loop's thread.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from service.observe.metrics import CONTENT_TYPE, VersionReport, render

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 64
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: str
    content_type: str = PLAIN


def admin_pages(
    reports: Callable[[], Iterable[VersionReport]], is_ready: Callable[[], bool]
) -> dict[str, Callable[[], Page]]:
    """Return the pages by path."""
    return {
        "/metrics": lambda: Page(200, render(reports()), CONTENT_TYPE),
        "/healthz": lambda: Page(200, "ok\n"),
        "/readyz": lambda: Page(200, "ready\n") if is_ready() else Page(503, "not ready\n"),
    }


class AdminServer:
    """See the module.

    Args:
        pages: what GET answers, by path.
    """

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> str:
        """Listen and return host:port with the real port. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._connections:
            writer.close()
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(writer)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                page, is_head = await self._answer(reader)
                body = page.body.encode()
                head = (
                    f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if is_head else body))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the other end went away or is too slow
        finally:
            self._connections.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Page(400, "the request is too long\n"), False
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, "no HTTP request\n"), False
        method, path = words[0], words[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return Page(405, "only GET\n"), False
        make = self._pages.get(path)
        if make is None:
            return Page(404, f"there are {', '.join(self._pages)}\n"), method == "HEAD"
        try:
            return make(), method == "HEAD"
        except Exception:
            log.exception("admin page failed", path=path)
            return Page(503, "internal error; the server's log has the details\n"), method == "HEAD"
