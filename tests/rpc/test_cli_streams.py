"""`forebay streams` and the client library's calls about streams: output, exit codes, several servers."""

import asyncio
import contextlib
import json
import sys

import pytest
from typer.testing import CliRunner

import forebay
import forebay.aio
from forebay_server.service.cli.streams import streams_app
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated
from tests.support.repository import ROOT
from tests.support.scripted_server import scripted


async def run(*arguments):
    """Exit code and output, in a separate process: the server in this one logs to the same output."""
    command = [sys.executable, "-m", "forebay_server.service", "streams", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def closed(*streams):
    for stream in streams:
        await stream.half_close()
        assert await stream.results() == []


@on_loop
async def test_open_streams_are_listed_and_moved(tmp_path):
    async with real_server(simulated(tmp_path), drain_grace_s=3600) as running:
        address = ("--address", running.address)
        assert await run("list", *address) == (0, f"{running.address}: 0 open streams\n")
        streams = [await running.open(stream_id=name) for name in ("yard", "door")]
        came = await running.open(stream_id="came", resume_from=3)
        code, output = await run("list", *address)
        lines = [line.split() for line in output.splitlines()]
        assert code == 0
        assert lines[0] == ["SERVER", "CAMERA", "MODEL", "LOAD", "AGE", "FRAMES", "CAN", "MOVE"]
        assert [line[1] for line in lines[1:4]] == ["door", "yard", "came"]
        assert lines[1][0] == running.address
        assert lines[1][2:4] == ["sim", "0%"]
        assert lines[1][-1] == "yes"
        assert output.splitlines()[3].endswith("not yet: came less than a minute ago")
        assert output.endswith(f"{running.address}: 3 open streams\n")
        assert await run("move", "--count", "1", *address) == (0, "1 stream was asked to go to other servers\n")
        assert await run("move", "--count", "2", "--json", *address) == (1, '{"asked": 1, "count": 2}\n')
        code, output = await run("list", "--json", *address)
        (server,) = json.loads(output)["servers"]
        assert (code, server["server"], server["count"]) == (0, running.address, 3)
        assert sorted(line["placement"] for line in server["streams"]) == ["leaving", "leaving", "stays"]
        code, output = await run("move", "--count", "1", *address)
        assert code == 1
        assert output == "0 of 1 streams were asked; no other can move now: forebay streams list says why\n"
        await closed(*streams, came)


@on_loop
async def test_a_name_cannot_act_on_the_operators_terminal(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open(stream_id="\x1b[2Jdoor\nyard" + 80 * "x")
        code, output = await run("list", "--address", running.address)
        assert code == 0
        assert len(output.splitlines()) == 3
        assert f"?[2Jdoor?yard{51 * 'x'}  sim" in output
        await closed(stream)


@on_loop
async def test_a_client_of_several_servers_lists_each_and_moves_those_of_one(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        places = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            places.append(await stack.enter_async_context(real_server(simulated(tmp_path / name))))
        first, second = places
        address = f"{first.address},{second.address}"
        client = await stack.enter_async_context(forebay.aio.Client(address))
        streams = [await first.open(stream_id="one"), await second.open(stream_id="two")]
        found = await client.list_streams()
        assert [(each.server, [line.camera for line in each.streams]) for each in found] == [
            (first.address, ["one"]),
            (second.address, ["two"]),
        ]
        with pytest.raises(ValueError, match="name one of the servers: 127"):
            await client.move_streams(1)
        with pytest.raises(ValueError, match="there is no server 'c:1'; there are 127"):
            await client.move_streams(1, server="c:1")
        with pytest.raises(ValueError, match="count is 0; give the number"):
            await client.move_streams(0)
        assert await client.move_streams(1, server=second.address) == 1
        with forebay.Client(address) as other:
            (_, theirs) = await asyncio.to_thread(other.list_streams)
            assert theirs.streams[0].placement == "leaving"
            assert await asyncio.to_thread(other.move_streams, 1, server=second.address) == 0
        await closed(*streams)


@on_loop
async def test_servers_that_answer_are_listed_though_others_do_not(tmp_path):
    async with real_server(simulated(tmp_path)) as running, scripted() as other:
        stream = await running.open(stream_id="yard")
        addresses = f"127.0.0.1:1,{running.address},{other.address}"
        async with forebay.aio.Client(addresses) as client:
            dead, alive, refusing = await client.list_streams()
        assert [line.camera for line in alive.streams] == ["yard"]
        assert alive.error is None
        assert isinstance(dead.error, forebay.UnreachableError)
        assert isinstance(refusing.error, forebay.CallRefusedError)
        assert (dead.server, dead.streams, dead.count) == ("127.0.0.1:1", (), 0)
        code, output = await run("list", "--address", addresses)
        assert code == 69
        assert f"{running.address}: 1 open stream\n" in output
        assert "forebay: no answer from 127.0.0.1:1: UNAVAILABLE: nothing listens there" in output
        assert f"forebay: {other.address}: the server has no call about streams" in output
        code, output = await run("list", "--json", "--address", f"127.0.0.1:1,{running.address}")
        dead, alive = json.loads(output.splitlines()[0])["servers"]
        assert dead["error"].startswith("no answer from 127.0.0.1:1")
        assert (alive["error"], alive["count"]) == (None, 1)
        await closed(stream)


@on_loop
async def test_a_restricted_server_says_what_is_missing_and_an_older_one_that_it_has_no_such_call(tmp_path):
    async with real_server(simulated(tmp_path), restricted_protocol=("streams:admin=s3cret",)) as running:
        code, output = await run("list", "--address", running.address)
        assert code == 1
        assert "give --restricted-protocol streams:KEY=VALUE" in output
        given = ("--restricted-protocol", "streams:admin=s3cret")
        code, output = await run("list", "--address", running.address, *given)
        assert code == 0
    async with scripted() as server:
        code, output = await run("list", "--address", server.address)
        assert (code, output) == (
            1,
            "forebay: the server has no call about streams: it is an older one, or none of Forebay's\n",
        )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--address", "127.0.0.1:1", "--timeout-s", "1"), 69, "no answer from 127.0.0.1:1"),
        (("--address", "127.0.0.1:1,127.0.0.1:2"), 69, "no answer from 127.0.0.1:1"),
        (("--address", "nowhere"), 2, "nowhere"),
        (("--address", ""), 2, "--address is empty; give host:port or unix:PATH"),
        (("--address", "127.0.0.1:1", "--tls-ca", "missing.pem"), 2, "missing.pem"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(arguments, code, words):
    result = CliRunner().invoke(streams_app, ["list", *arguments])
    assert result.exit_code == code
    assert words in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1,127.0.0.1:2", "--address names several servers, and streams leave one of them: give that one"),
        ("", "--address is empty; give host:port or unix:PATH"),
        ("a:1,", "the address 'a:1,' has an empty entry"),
    ],
)
def test_streams_leave_one_server_that_is_given(address, words):
    result = CliRunner().invoke(streams_app, ["move", "--count", "1", "--address", address])
    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output.splitlines()) == 1
