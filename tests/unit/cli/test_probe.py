"""The health check's call without gRPC: every kind of server, from plain to broken, and no import that costs."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from forebay_server.service.cli.health_check import Question, read_words
from forebay_server.service.cli.remote.health import HealthError, check_health
from forebay_server.service.cli.remote.probe import UnclearError, probe
from forebay_server.service.clock import MonotonicClock
from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

SETTINGS = bytes.fromhex("000000 04 00 00000000")
PING = bytes.fromhex("000008 06 00 00000000") + b"12345678"
PONG = bytes.fromhex("000008 06 01 00000000") + b"12345678"
HEADERS = bytes.fromhex("000001 01 04 00000001 88")
TRAILERS = bytes.fromhex("000001 01 05 00000001 88")
GOAWAY = bytes.fromhex("000008 07 00 00000000 00000000 00000000")
GRACEFUL_GOAWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
RESET = bytes.fromhex("000004 03 00 00000001 00000002")
SERVING = bytes.fromhex("000007 00 00 00000001 0000000002 0801")
PADDED = bytes.fromhex("00000a 00 08 00000001 02 0000000002 0801 0000")
FIRST_HALF = bytes.fromhex("000004 00 00 00000001 00000000")
SECOND_HALF = bytes.fromhex("000003 00 00 00000001 02 0801")
COMPRESSED = bytes.fromhex("000007 00 00 00000001 0100000002 0801")
EMPTY_PADDED = bytes.fromhex("000000 00 08 00000001")
TOO_PADDED = bytes.fromhex("000002 00 08 00000001 0501")
ENDED_EARLY = bytes.fromhex("000003 00 01 00000001 6e6f74")
HUGE = bytes.fromhex("ffffff 00 00 00000001")


def in_seconds(seconds=HANG_GUARD_S):
    return MonotonicClock().now_ns() + int(seconds * 1e9)


class Script:
    """A server that answers the first connection with given bytes and closes it; keeps what it was sent."""

    def __init__(self, answer):
        self.answer, self.sent = answer, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(HANG_GUARD_S)
            while not self.sent.endswith(b"MESSAGE"):
                self.sent += connection.recv(65536)
            connection.sendall(self.answer)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                self.sent += more

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(HANG_GUARD_S)
        self.listener.close()


def ask(script, headers=()):
    return probe(script.address, "/a.B/C", b"MESSAGE", in_seconds(), None, headers)


@pytest.mark.parametrize(
    "frames",
    [
        [SETTINGS, HEADERS, SERVING, TRAILERS],
        [SETTINGS, PING, HEADERS, FIRST_HALF, PING, SECOND_HALF],
        [SETTINGS, GRACEFUL_GOAWAY, HEADERS, PADDED],
    ],
    ids=["plain", "in-two-frames", "draining"],
)
def test_a_message_is_the_answer(frames):
    with Script(b"".join(frames)) as script:
        assert ask(script) == b"\x08\x01"


@pytest.mark.parametrize(
    "frames",
    [
        [SETTINGS, TRAILERS],
        [GOAWAY],
        [RESET],
        [COMPRESSED],
        [HUGE],
        [PING] * 65,
        [],
        [FIRST_HALF],
        [b"HTTP/1.1 400 No"],
        [EMPTY_PADDED],
        [TOO_PADDED],
        [ENDED_EARLY, PING],
    ],
    ids=[
        "error",
        "goaway",
        "reset",
        "compressed",
        "huge",
        "endless",
        "closed",
        "half",
        "http1",
        "no padding",
        "padding longer than its frame",
        "data without a message",
    ],
)
def test_everything_else_is_left_to_grpc(frames):
    with Script(b"".join(frames)) as script, pytest.raises(UnclearError):
        ask(script)


def test_pings_are_answered_and_headers_sent_whatever_their_length():
    long = "v" * 300
    with Script(SETTINGS + PING + SERVING) as script:
        ask(script, (("triton-grpc-protocol-key", long),))
    assert PONG in script.sent
    assert b"\x00\x18triton-grpc-protocol-key\x7f\xad\x01" + long.encode() in script.sent
    assert script.sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


@pytest.mark.parametrize(
    "address", ["dns:///localhost:1", "localhost", "::1:80", "unix-abstract:x", "127.0.0.1:73537", "a..b:80"]
)
def test_addresses_that_grpc_alone_knows_are_left_to_it(address):
    with pytest.raises(UnclearError):
        probe(address, "/a.B/C", b"", in_seconds(), None, ())


def test_a_server_that_does_not_answer_takes_no_longer_than_allowed():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HealthError, match="DEADLINE_EXCEEDED"):
            check_health(address, "", 0.1)


@pytest.mark.parametrize("address", ["unix:{}/none.sock", "unix://{}/none.sock", "127.0.0.1:9", "[::1]:9"])
def test_a_server_that_is_not_there_is_said_without_grpc(address, tmp_path):
    with pytest.raises(HealthError, match="UNAVAILABLE: "):
        check_health(address.format(tmp_path), "", 1.0)


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ("", Question()),
        ("--json --model m", Question(model="m", is_json=True)),
        ("--address=a:1 --timeout-s 3", Question("a:1", timeout_s=3.0)),
        (
            "--tls-ca a --tls-cert b --tls-key c --tls-name d --restricted-protocol health:k=v",
            Question(ca="a", cert="b", key="c", server_name="d", restricted_protocol="health:k=v"),
        ),
        ("--help", None),
        ("--timeout-s no", None),
        ("--timeout-s 90", None),
        ("--timeout-s nan", None),
        ("--model", None),
        ("--modell m", None),
        ("extra words", None),
    ],
)
def test_words_are_read_as_typer_reads_them_or_left_to_it(words, question):
    assert read_words(words.split(), {}) == question


def test_the_header_of_a_restriction_comes_from_the_environment_unless_it_is_given():
    environment = {"FOREBAY_RESTRICTED_PROTOCOL": "health:k=v"}
    assert read_words([], environment).restricted_protocol == "health:k=v"
    assert read_words(["--restricted-protocol", "health:k=w"], environment).restricted_protocol == "health:k=w"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["health", "--address", "127.0.0.1:9"], {"typer", "grpc", "numpy", "ssl", "json", "dataclasses", "asyncio"}),
        (["--help"], {"grpc", "numpy", "asyncio", "pydantic", "ssl", "forebay_server.service.cli.serve"}),
    ],
    ids=["health", "help"],
)
def test_a_quick_command_imports_no_library_that_costs(words, absent):
    program = (
        "import sys; before = set(sys.modules); from forebay_server.service.cli import main\n"
        "try: main()\n"
        "except SystemExit: sys.__stderr__.write('\\n' + ' '.join(set(sys.modules) - before))\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "FOREBAY"))}
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
    )
    imported = set(ended.stderr.splitlines()[-1].split())
    assert "forebay_server.service.cli" in imported
    assert not absent & imported
