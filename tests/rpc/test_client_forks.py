"""A process forks while a client is open: its child gets an error, and the parent goes on."""

import subprocess
import sys

from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT
from tests.support.scripted_server import ScriptedServerThread

OPEN = r"""
import asyncio, os, sys
import forebay, forebay.aio

address = sys.argv[1]
KEYWORDS = {"model": "m", "encoding": "jpeg", "delivery": "every"}


async def ask_asynchronously():
    async with forebay.aio.Client(address) as client:
        await client.models()


def refused(use):
    try:
        use()
    except forebay.ForkedClientError as error:
        assert "spawn" in str(error)
    else:
        os._exit(3)


def in_child(client, stream):
    refused(lambda: stream.send(b"2"))
    refused(lambda: stream.receive(timeout_s=0))
    refused(stream.finish)
    refused(stream.open)
    refused(lambda: next(stream.map([b"3"])))
    refused(lambda: client.stream("other", **KEYWORDS))
    refused(lambda: client.infer(b"\xff\xd8\xff", model="m"))
    refused(client.models)
    refused(lambda: forebay.Client(address).models())
    refused(lambda: asyncio.run(ask_asynchronously()))
    raise SystemExit(7)  # leaves both blocks and ends in order


children = []
with forebay.Client(address) as client, client.stream("door", **KEYWORDS) as stream:
    for number in range(1, 6):
        stream.send(b"1")
        assert stream.receive().seq == number
        child = os.fork()
        if not child:
            in_child(client, stream)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7] * 5
    stream.send(b"1")
    assert stream.receive().is_ok
print("parent goes on")
"""

CLOSED = """
import os, sys
import forebay

with forebay.Client(sys.argv[1]) as client:
    assert client.infer(b"\\xff\\xd8\\xff", model="m").is_ok
if not (child := os.fork()):
    try:
        forebay.Client(sys.argv[1]).infer(b"\\xff\\xd8\\xff", model="m")
    except forebay.ForkedClientError:
        raise SystemExit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("refused")
"""


def output_of(program):
    with ScriptedServerThread() as server:
        ended = subprocess.run(
            [sys.executable, "-c", program, server.address],
            cwd=ROOT, capture_output=True, text=True, timeout=HANG_GUARD_S, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_a_child_with_an_open_client_gets_an_error_and_ends_in_order():
    assert output_of(OPEN) == "parent goes on\n"


def test_a_child_of_a_process_that_has_closed_its_client_gets_the_error_too():
    assert output_of(CLOSED) == "refused\n"
