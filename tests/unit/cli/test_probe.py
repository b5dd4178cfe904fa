"""The health check's call without gRPC: every kind of server, from plain to broken, and no import that costs."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from forebay_server.service.cli.health_check import Question, read_words
from forebay_server.service.cli.remote.health import HealthError, UnclearError, check_health
from forebay_server.service.cli.remote.probe import probe
from forebay_server.service.clock import MonotonicClock
from tests.support.guard import HANG_GUARD_S
from tests.support.imports import run_command
from tests.support.repository import ROOT

SETTINGS = bytes.fromhex("000000 04 00 00000000")
NO_TABLE = bytes.fromhex("000006 04 00 00000000 0001 00000000")
PING = bytes.fromhex("000008 06 00 00000000") + b"12345678"
PONG = bytes.fromhex("000008 06 01 00000000") + b"12345678"
HEADERS = bytes.fromhex("000001 01 04 00000001 88")
PADDED_HEADERS = bytes.fromhex("000009 01 2c 00000001 02 0000000000 88 0000")
EARLY_HINTS = bytes.fromhex("000005 01 04 00000001 0803") + b"103"
HALF_HEADERS = bytes.fromhex("000001 01 00 00000001 88")
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


def trailers(status, first=b""):
    """The last header block of an answer: a status of gRPC, after other fields."""
    block = first + b"\x40\x0bgrpc-status" + bytes([len(status)]) + status.encode()
    return len(block).to_bytes(3, "big") + bytes.fromhex("01 05 00000001") + block


OK = trailers("0")


def in_seconds(seconds=HANG_GUARD_S):
    return MonotonicClock().now_ns() + int(seconds * 1e9)


class Script:
    """A server that answers the first connection with given bytes and closes it; keeps what it was sent."""

    def __init__(self, answer, listener=None):
        self.answer, self.sent = answer, b""
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}" if listener is None else ""
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
        [SETTINGS, HEADERS, SERVING, OK],
        [SETTINGS, PING, HEADERS, FIRST_HALF, PING, SECOND_HALF, OK],
        [SETTINGS, GRACEFUL_GOAWAY, EARLY_HINTS, PADDED_HEADERS, PADDED, OK],
    ],
    ids=["plain", "in-two-frames", "draining, padded, hints first"],
)
def test_a_message_with_status_ok_is_the_answer(frames):
    with Script(b"".join(frames)) as script:
        assert ask(script) == b"\x08\x01"


def test_an_unknown_name_is_no_message():
    with Script(SETTINGS + trailers("5", first=b"\x88")) as script:
        assert ask(script) is None


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([SETTINGS, trailers("12", first=b"\x88")], "UNIMPLEMENTED: the server has no grpc.health.v1"),
        ([SETTINGS, bytes.fromhex("000005 01 04 00000001 0803") + b"503"], "HTTP status 503: a proxy"),
        ([SETTINGS, bytes.fromhex("000001 01 05 00000001 8d")], "HTTP status 404: a proxy"),
    ],
    ids=["no such service", "a proxy whose server is gone", "another server"],
)
def test_a_refusal_that_needs_no_more_than_its_number_is_one_line(frames, words):
    with Script(b"".join(frames)) as script, pytest.raises(HealthError, match=words):
        ask(script)


@pytest.mark.parametrize(
    "frames",
    [
        [HEADERS, SERVING, trailers("13")],
        [trailers("14", first=b"\x88")],
        [HEADERS, SERVING, bytes.fromhex("000001 01 05 00000001 be")],
        [HEADERS, SERVING, trailers("0")[:9].replace(b"\x05", b"\x04")],
        [HEADERS, SERVING, SERVING, OK],
        [HEADERS, OK],
        [HALF_HEADERS],
        [GOAWAY],
        [RESET],
        [HEADERS, COMPRESSED, OK],
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
        "a message and an error after it",
        "a refusal with words",
        "a status in the server's table",
        "a message without its end",
        "two messages",
        "no message",
        "headers in several frames",
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
    with Script(SETTINGS + PING + HEADERS + SERVING + OK) as script:
        ask(script, (("triton-grpc-protocol-key", long),))
    assert PONG in script.sent
    assert b"\x00\x18triton-grpc-protocol-key\x7f\xad\x01" + long.encode() in script.sent
    assert script.sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NO_TABLE)


@pytest.mark.parametrize("address", ["dns:///localhost:1", "localhost", "::1:80", "127.0.0.1:73537", "a..b:80"])
def test_addresses_that_grpc_alone_knows_are_left_to_it(address):
    with pytest.raises(UnclearError):
        probe(address, "/a.B/C", b"", in_seconds(), None, ())


def test_a_server_that_does_not_answer_takes_no_longer_than_allowed():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HealthError, match="DEADLINE_EXCEEDED"):
            check_health(address, "", 0.1)


@pytest.mark.parametrize(
    "address",
    [
        *("unix:{}/none.sock", "unix://{}/none.sock", "unix-abstract:forebay-none"),
        *("127.0.0.1:9", "[::1]:9", "localhost:9", "no-such-host.invalid:9"),
    ],
)
def test_a_server_that_is_not_there_is_said_without_grpc(address, tmp_path):
    with pytest.raises(HealthError, match="UNAVAILABLE: "):
        check_health(address.format(tmp_path), "", 1.0)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_an_address_that_does_not_answer_leaves_time_for_the_next():
    with Script(SETTINGS + HEADERS + SERVING + OK) as script:
        port = int(script.address.rpartition(":")[2])
        silent = socket.create_server(("::1", port), family=socket.AF_INET6, backlog=0)
        with silent, socket.create_connection(("::1", port)):  # its queue is full: the next one waits
            assert probe(f"localhost:{port}", "/a.B/C", b"MESSAGE", in_seconds(3.0), None, ()) == b"\x08\x01"


def test_localhost_is_both_loopback_addresses():
    with Script(SETTINGS + HEADERS + SERVING + OK) as script:
        address = script.address.replace("127.0.0.1", "localhost")
        assert probe(address, "/a.B/C", b"MESSAGE", in_seconds(), None, ()) == b"\x08\x01"


def test_an_abstract_socket_is_asked_without_grpc():
    name = f"forebay-test-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen()
    with Script(SETTINGS + HEADERS + SERVING + OK, listener):
        assert probe(f"unix-abstract:{name}", "/a.B/C", b"MESSAGE", in_seconds(), None, ()) == b"\x08\x01"


def test_a_resolver_that_does_not_answer_takes_no_longer_than_allowed(monkeypatch):
    is_over = threading.Event()
    resolve = socket.getaddrinfo

    def stuck(host, *arguments, flags=0, **keywords):
        if not flags & socket.AI_NUMERICHOST:
            is_over.wait(HANG_GUARD_S)
        return resolve(host, *arguments, flags=socket.AI_NUMERICHOST, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    before = set(threading.enumerate())
    with pytest.raises(HealthError, match=r"DEADLINE_EXCEEDED: the name camera\.example was not resolved in time"):
        check_health("camera.example:8001", "", 0.1)
    is_over.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG_GUARD_S)


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


def test_a_health_check_imports_no_library_that_costs():
    ended = run_command("health", "--address", "127.0.0.1:9")
    assert ended.code == 69
    costly = {"typer", "grpc", "numpy", "ssl", "json", "dataclasses", "asyncio", "encodings.idna"}
    assert not costly & ended.imported


def test_a_health_check_of_an_installation_imports_no_pathlib():
    """Without `site`, whose finder of an editable install imports pathlib: as an image and a wheel have it."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import forebay_server.service.cli.health_check, forebay_server.service.cli.remote.probe\n"
        "print(*sys.modules)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, ROOT]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=HANG_GUARD_S)
    assert "socket" in ended.stdout.split()
    assert not {"pathlib", "typer", "grpc"} & set(ended.stdout.split())
