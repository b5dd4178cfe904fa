"""Faults that keep a server from listening are found before models load: each is one line and its exit code."""

import socket

import pytest

from tests.support.real_server import simulated
from tests.support.supervised import served


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Start with one more flag each; return the exit code and the log."""

    def starting(front_ends, *more):
        flags = ["--model-repository", simulated(tmp_path / "models"), "--front-ends", front_ends, *more]
        with served(*flags, environment={"FOREBAY_CACHE_FOLDER": str(tmp_path / "cache")}) as server:
            return server.wait(), server.log

    return starting


@pytest.mark.parametrize("front_ends", ["0", "2"])
@pytest.mark.parametrize("mistake", ["port", "certificate", "unix socket"])
def test_it_is_found_before_a_model_is_loaded(tmp_path, start, taken, front_ends, mistake):
    (tmp_path / "file").write_text("neither a certificate nor a socket")
    file = tmp_path / "file"
    flags, expected_code, words = {
        "port": (["--address", f"127.0.0.1:{taken}"], 69, "is it in use?"),
        "certificate": (["--address", "127.0.0.1:0", "--tls-cert", file, "--tls-key", file], 2, "is no PEM file"),
        "unix socket": (["--address", "127.0.0.1:0", "--uds", file], 69, "something else lies there"),
    }[mistake]
    code, log = start(front_ends, *flags)
    assert code == expected_code
    assert log.count(words) == 1
    assert "model loaded" not in log
    assert "add_port" not in log  # gRPC's own words
