"""A client of several addresses: where its streams go, and that every frame is accounted for on the way."""

import contextlib
import logging
import socket

import grpc
import pytest

import forebay
import forebay.aio
from forebay import Reconnection, Status, StreamRefusedError, UnreachableError
from forebay.wire import frames_pb2 as wire
from tests.support.certificates import Authority, needs_openssl
from tests.support.loops import on_loop
from tests.support.real_server import eventually
from tests.support.scripted_server import ScriptedServerThread, scripted

EVERY = {"model": "m", "encoding": "jpeg", "delivery": "every", "queue_frames": 8}
DEAD = "127.0.0.1:1"


def port_of(server):
    return int(server.address.rpartition(":")[2])


def two_records(monkeypatch, name):
    """Let the resolver know a name with two records, 127.0.0.2 and 127.0.0.3."""
    real = socket.getaddrinfo

    def look_up(host, port, *arguments, **keywords):
        if host != name:
            return real(host, port, *arguments, **keywords)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 3)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def client_of(*servers, **keywords):
    """A client whose back-off is always zero, and which prefers the first server among equals."""
    address = ",".join(each if isinstance(each, str) else each.address for each in servers)
    return forebay.aio.Client(address, draw=lambda: 0.0, **keywords)


async def outcomes(stream):
    return [(result.seq, result.status) async for result in stream]


def ok(*seqs):
    return [(seq, Status.OK) for seq in seqs]


@on_loop
async def test_streams_are_spread_over_the_servers():
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(scripted()) for _ in range(3)]
        client = await stack.enter_async_context(forebay.aio.Client(",".join(each.address for each in servers)))
        streams = [client.stream(f"camera {index}", **EVERY) for index in range(30)]
        for stream in streams:
            await stream.open()
        assert all(8 <= len(server.calls) <= 12 for server in servers)
        assert {stream.server for stream in streams} == {server.address for server in servers}


@on_loop
async def test_frames_of_a_server_that_breaks_are_answered_by_another_at_once():
    async def breaks(call):
        await call.accept()
        await call.read()
        await call.read()
        await call.answer(1)
        await call.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with scripted(breaks) as first, scripted() as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        for _ in range(3):
            await stream.send(b"jpeg")
        await stream.close()
        assert await outcomes(stream) == ok(1, 2, 3)
        assert (len(first.calls), len(second.calls)) == (1, 1)
        assert second.calls[0].seqs == [2, 3]
        assert stream.server == second.address


@on_loop
async def test_a_server_that_drains_gets_no_stream_for_a_while():
    async def drains(call):
        await call.accept()
        await call.answer((await call.read()).seq)
        await call.reconnect()
        await call.echo()

    async with scripted(drains) as first, scripted() as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        for seq in range(1, 4):
            await stream.send(b"jpeg")
            assert (await stream.receive()).seq == seq
        other = client.stream("gate", **EVERY)
        await other.open()
        assert (len(first.calls), len(second.calls)) == (1, 2)
        assert stream.statistics().resent == 0


@on_loop
async def test_a_server_with_too_much_to_do_gets_no_stream_for_a_while():
    async def moves(call):
        await call.accept()
        await call.answer((await call.read()).seq)
        await call.reconnect(reason=wire.Reconnect.REASON_ELSEWHERE)
        await call.echo()

    async with scripted(moves) as first, scripted() as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        for _ in range(3):
            await stream.send(b"jpeg")
        await eventually(lambda: second.calls)
        other = client.stream("gate", **EVERY)
        await other.open()
        assert other.server == second.address


@on_loop
async def test_a_stream_whose_lifetime_is_over_is_placed_anew():
    async def ends(call):
        await call.accept()
        if call.index == 0:
            await call.reconnect(reason=wire.Reconnect.REASON_REBALANCE)
        await call.echo()

    async with scripted(ends) as first, scripted() as second, client_of(first, second) as client:
        await client.stream("door", **EVERY).open()
        await eventually(lambda: len(first.calls) + len(second.calls) == 2)
        assert second.calls == []  # both have no stream then, and the first is drawn first


@pytest.mark.parametrize("reason", [wire.Reconnect.REASON_REBALANCE, wire.Reconnect.REASON_ELSEWHERE])
@on_loop
async def test_with_one_server_a_stream_that_is_to_move_comes_back_on_another_connection(reason):
    async def moves(call):
        await call.accept()
        if call.index == 0:
            await call.reconnect(reason=reason)
        await call.echo()

    async with scripted(moves) as server, client_of(server) as client:
        await client.stream("first", **EVERY).open()
        await eventually(lambda: len(server.calls) == 2)
        assert server.calls[0].peer != server.calls[1].peer


@on_loop
async def test_a_full_server_is_left_for_another_without_waiting_as_long_as_it_advises():
    async def is_full(call):
        await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("retry-after-ms", "60000"),))

    async with scripted(is_full) as first, scripted() as second, client_of(first, second) as client:
        for name in ("one", "two", "three"):
            await client.stream(name, **EVERY).open()
        assert (len(first.calls), len(second.calls)) == (1, 3)


@on_loop
async def test_a_server_without_the_model_makes_room_for_one_that_has_it():
    async def knows_no_model(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model m")

    async with scripted(knows_no_model) as first, scripted() as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        await stream.open()
        assert stream.server == second.address


@on_loop
async def test_a_stream_that_all_servers_refuse_is_refused():
    async def knows_no_model(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model m")

    async with scripted(knows_no_model) as first, scripted(knows_no_model) as second:
        async with client_of(first, second) as client:
            with pytest.raises(StreamRefusedError, match="no model m"):
                await client.stream("door", **EVERY).open()
        assert (len(first.calls), len(second.calls)) == (1, 1)


@on_loop
async def test_a_refusal_says_more_than_a_server_that_is_not_there():
    async def knows_no_model(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model m")

    limits = Reconnection(connect_timeout_s=0.3)
    async with scripted(knows_no_model) as server, client_of(server, DEAD, reconnection=limits) as client:
        with pytest.raises(StreamRefusedError, match="no model m"):
            await client.stream("door", **EVERY).open()


@on_loop
async def test_an_open_stream_that_is_refused_goes_to_no_other_server():
    async def refuses_a_frame(call):
        await call.accept()
        await call.read()
        await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many fields")

    async with scripted(refuses_a_frame) as first, scripted() as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"jpeg")
        assert (await stream.receive()).status is Status.UNANSWERED
        with pytest.raises(StreamRefusedError, match="too many fields"):
            await stream.receive()
        assert second.calls == []


@on_loop
async def test_a_list_with_a_dead_and_a_repeated_entry_works_and_says_so(caplog):
    caplog.set_level(logging.WARNING, "forebay")
    async with scripted() as server, client_of(DEAD, server, server) as client:
        for name in ("one", "two"):
            stream = client.stream(name, **EVERY)
            await stream.send(b"jpeg")
            await stream.close()
            assert await outcomes(stream) == ok(1)
    assert [record.getMessage() for record in caplog.records if "more than once" in record.getMessage()] == [
        f"the address {server.address} is given more than once; it counts once"
    ]
    assert any(f"server {DEAD} is left out for" in record.getMessage() for record in caplog.records)


@on_loop
async def test_a_record_is_asked_by_its_address_or_by_its_whole_name(monkeypatch):
    two_records(monkeypatch, "cameras.example")
    async with client_of("cameras.example:1") as client:
        for server in ("127.0.0.3:1", "127.0.0.3:1 (cameras.example:1)"):
            with pytest.raises(UnreachableError, match=r"no answer from 127\.0\.0\.3:1 "):
                await client.move_streams(1, server=server)
        with pytest.raises(ValueError, match=r"there is no server '127\.0\.0\.4:1'; there are 127\.0\.0\.2:1 "):
            await client.move_streams(1, server="127.0.0.4:1")


@pytest.mark.parametrize("client", [forebay.Client, forebay.aio.Client])
def test_a_wrong_entry_is_named_before_anything_is_sent(client):
    with pytest.raises(ValueError, match="'b' is no address; give host:port"):
        client("127.0.0.1:8001,b")


@on_loop
async def test_servers_that_are_all_dead_are_named():
    limits = Reconnection(connect_timeout_s=0.2)
    async with forebay.aio.Client(f"{DEAD},127.0.0.1:2", reconnection=limits) as client:
        with pytest.raises(UnreachableError, match=r"no stream on 127\.0\.0\.1:1,127\.0\.0\.1:2 within 0\.2 s"):
            await client.stream("door", **EVERY).open()


@on_loop
async def test_a_proxy_that_cuts_every_stream_costs_no_frame():
    async def cuts(call):
        await call.accept()
        for _ in range(3):
            await call.answer((await call.read()).seq)
        await call.read()
        await call.abort(grpc.StatusCode.INTERNAL, "RST_STREAM")

    limits = Reconnection(reopenings_per_s=1000.0)
    async with (
        scripted(cuts) as first,
        scripted(cuts) as second,
        client_of(first, second, reconnection=limits) as client,
    ):
        stream = client.stream("door", **EVERY)
        taken = []
        for _ in range(24):
            await stream.send(b"jpeg")
            taken.append((await stream.receive()).seq)
        assert taken == list(range(1, 25))
        assert stream.statistics().by_status == {Status.OK: 24}
        assert stream.statistics().resent == 7


@on_loop
async def test_each_record_of_a_name_is_a_server(monkeypatch):
    two_records(monkeypatch, "cameras.test")
    async with scripted(address="127.0.0.2:0") as first, scripted(address=f"127.0.0.3:{port_of(first)}") as second:
        async with forebay.aio.Client(f"cameras.test:{port_of(first)}") as client:
            streams = [client.stream(f"camera {index}", **EVERY) for index in range(6)]
            for stream in streams:
                await stream.open()
        assert sorted((len(first.calls), len(second.calls))) in ([2, 4], [3, 3])
        name = f"cameras.test:{port_of(first)}"
        assert {each.server for each in streams} == {f"127.0.0.{last}:{port_of(first)} ({name})" for last in (2, 3)}


@needs_openssl
@on_loop
async def test_certificates_of_the_records_of_a_name_are_checked_by_the_name(monkeypatch, tmp_path):
    two_records(monkeypatch, "localhost")
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    async with scripted(address="127.0.0.2:0", credentials=credentials) as server:
        tls = forebay.Tls(ca=authority.certificate)
        async with forebay.aio.Client(f"localhost:{port_of(server)}", tls=tls) as client:
            stream = client.stream("door", **EVERY)
            await stream.open()  # 127.0.0.2 is not in the certificate, localhost is
            assert stream.server.startswith("127.0.0.2:")
        assert len(server.calls) == 1


@on_loop
async def test_a_question_goes_on_to_the_next_server():
    async with scripted() as server, client_of(DEAD, server) as client:
        with pytest.raises(forebay.CallRefusedError, match="UNIMPLEMENTED"):  # the scripted server's answer
            await client.models()
        with pytest.raises(forebay.CallRefusedError, match="UNIMPLEMENTED"):
            await client.models()


def test_the_synchronous_client_takes_several_addresses():
    with ScriptedServerThread() as first, ScriptedServerThread() as second:
        with forebay.Client(f"{first.address},{second.address},{DEAD}") as client:
            for index in range(6):
                stream = client.stream(f"camera {index}", **EVERY)
                stream.send(b"jpeg")
                assert stream.receive().status is Status.OK
                assert stream.server in {first.address, second.address}
        assert first.calls
        assert second.calls
