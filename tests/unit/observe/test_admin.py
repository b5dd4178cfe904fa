"""The admin port's HTTP, with readers that do not behave."""

import asyncio
import contextlib
import gc
import itertools
from pathlib import Path

import pytest

from forebay_server.service.observe import admin
from forebay_server.service.observe.admin import AdminServer, Download, Events, Page
from forebay_server.service.observe.admin_thread import AdminThread
from forebay_server.service.observe.live import Feed, event
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop


async def open_connection(address):
    return await asyncio.open_connection(*address.split(":"))


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def listening(pages):
    server = AdminServer(pages)
    return server, await server.start("127.0.0.1", 0)


async def ask(address, path="/"):
    reader, writer = await open_connection(address)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    return reader, writer


@on_loop
async def test_a_reader_that_takes_nothing_is_cut(monkeypatch):
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.05)
    ended = asyncio.Event()

    def chunks():
        try:
            yield from itertools.repeat("x" * 65_536)
        finally:
            ended.set()

    server, address = await listening({"/": lambda _: Download(chunks(), "x.json")})
    _, writer = await ask(address)
    while server._connections or not ended.is_set():
        await asyncio.sleep(0.01)
    writer.close()
    await server.close()


@on_loop
async def test_a_client_that_says_nothing_is_cut(monkeypatch):
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.05)
    server, address = await listening({})
    reader, writer = await open_connection(address)
    assert await reader.read() == b""
    writer.close()
    await server.close()


@on_loop
async def test_readers_of_events_are_never_cut_for_a_new_connection(monkeypatch):
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 2)

    async def for_ever():
        yield "data: 1\n\n"
        await asyncio.Event().wait()

    server, address = await listening({"/": lambda _: Events(for_ever()), "/readyz": lambda _: Page(200, "ready\n")})
    watching = [await ask(address) for _ in range(2)]
    for reader, _ in watching:
        assert (await reader.readuntil(b"data: 1\n\n")).startswith(b"HTTP/1.1 200")
    reader, writer = await ask(address, "/readyz")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    assert len(server._connections) == 2
    for _, each in (*watching, (reader, writer)):
        each.close()
    await server.close()


@on_loop
async def test_a_page_that_fails_says_so_without_details():
    def fail(_):
        raise RuntimeError("/secret/path")

    server, address = await listening({"/": fail})
    reader, writer = await ask(address)
    answer = await reader.read()
    assert b" 503 " in answer
    assert b"secret" not in answer
    writer.close()
    await server.close()


@on_loop
async def test_feed_drops_what_a_slow_reader_misses_and_refuses_too_many():
    feed = Feed(limit=1)
    first = feed.subscribe("first")
    assert await anext(first) == "first"
    assert [message async for message in feed.subscribe("second")] == ["retry: 10000\n\n"]
    waiting = asyncio.create_task(anext(first))
    await asyncio.sleep(0)
    feed.publish("one")
    feed.publish("two")
    assert await waiting == "two"
    assert feed.latest == "two"
    await first.aclose()
    assert feed.watchers == 0
    assert feed.latest == ""  # the second of those who come again would be shown it


@on_loop
async def test_closing_ends_open_events_and_the_thread():
    async def for_ever():
        yield "data: 1\n\n"
        await asyncio.Event().wait()

    ticks = []
    thread = AdminThread({"/": lambda _: Events(for_ever())}, lambda: ticks.append(1))
    address = await thread.start("127.0.0.1", 0)
    reader, writer = await ask(address)
    await reader.readuntil(b"data: 1\n\n")
    assert await thread.close(HANG_GUARD_S)
    await thread.close(HANG_GUARD_S)
    assert await reader.read() == b""
    assert ticks
    writer.close()


@on_loop
async def test_a_tick_that_fails_leaves_the_port_alive():
    def fail():
        raise RuntimeError("our bug")

    thread = AdminThread({"/": lambda _: Page(200, "alive")}, fail)
    reader, writer = await ask(await thread.start("127.0.0.1", 0))
    assert b"alive" in await reader.read()
    await thread.close(HANG_GUARD_S)
    writer.close()


def test_an_event_is_one_line_whatever_it_holds():
    text = event("state", {"name": "a\nb\r\n\ndata: x\u2028"})
    assert text.count("\n") == 3
    assert text.endswith("\n\n")


@on_loop
async def test_an_address_that_makes_no_sense_is_an_error_and_no_hang():
    thread = AdminThread({}, lambda: None)
    with pytest.raises(OverflowError):
        await thread.start("127.0.0.1", 1 << 20)
    assert await thread.close(HANG_GUARD_S)


@on_loop
async def test_slow_clients_never_keep_a_probe_waiting(monkeypatch):
    """More connections that say nothing than there is room for; each probe is answered, and the oldest is cut."""
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", HANG_GUARD_S)  # on a busy machine, not all come within 5 s
    server, address = await listening({"/readyz": lambda _: Page(200, "ready\n")})
    slow = [await open_connection(address) for _ in range(admin.MAX_CONNECTIONS)]
    for _ in range(3):
        reader, writer = await ask(address, "/readyz")
        assert (await reader.read()).endswith(b"ready\n")
        writer.close()
        slow.append(await open_connection(address))
    assert await slow[0][0].read() == b""
    assert len(server._connections) <= admin.MAX_CONNECTIONS
    await server.close()
    for _, writer in slow:
        writer.close()


@on_loop
async def test_readers_that_are_slow_to_take_an_answer_make_room_too(monkeypatch):
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", HANG_GUARD_S)  # on a busy machine, not all come within 5 s
    server, address = await listening(
        {
            "/big": lambda _: Download((chunk for chunk in itertools.repeat("x" * 65_536)), "x.json"),
            "/readyz": lambda _: Page(200, "ready\n"),
        }
    )
    slow = [await ask(address, "/big") for _ in range(admin.MAX_CONNECTIONS)]
    while len(server._answering) < admin.MAX_CONNECTIONS:
        await asyncio.sleep(0.01)
    reader, writer = await ask(address, "/readyz")
    assert (await reader.read()).endswith(b"ready\n")
    writer.close()
    await server.close()
    for _, writer in slow:
        writer.close()


@on_loop
async def test_who_takes_no_answer_holds_no_descriptor(monkeypatch):
    """The unread rest of an answer is discarded with its socket."""
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.05)
    server, address = await listening({"/": lambda _: Page(200, "x" * (16 << 20))})
    gc.collect()  # sockets of earlier tests
    before = open_descriptors()
    reader, writer = await ask(address)
    await reader.readexactly(1)  # it has been accepted; the rest of the answer does not fit into the buffers
    while server._connections or open_descriptors() != before + 1:  # the client's own
        await asyncio.sleep(0.01)
    writer.close()
    await server.close()
