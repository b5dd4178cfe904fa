import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.commands import app


class Admin(BaseHTTPRequestHandler):
    def do_GET(self):
        whole = json.dumps({"traceEvents": [{}, {}]}).encode()
        known = {"/trace?seconds=2.5": whole, "/trace?seconds=3": whole[:-3], "/trace?seconds=4": b"[]"}
        is_known = self.path in known
        body = known.get(self.path, b"seconds must be a number")
        self.send_response(200 if is_known else 400)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def admin_address():
    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(*arguments):
    return CliRunner().invoke(app, ["trace", *arguments])


def test_trace_is_written_and_told(admin_address, tmp_path):
    path = tmp_path / "t.json"
    result = run("--seconds", "2.5", "-o", str(path), "--admin-address", admin_address, "--json")
    assert result.exit_code == exit_codes.OK
    assert json.loads(result.output) == {"path": str(path), "events": 2, "bytes": path.stat().st_size}
    assert json.loads(path.read_text())["traceEvents"] == [{}, {}]


def test_standard_output_gets_the_trace_alone(admin_address):
    result = run("--seconds", "2.5", "-o", "-", "--admin-address", admin_address)
    assert json.loads(result.stdout)["traceEvents"] == [{}, {}]


def test_a_refusal_is_one_line(admin_address, tmp_path):
    result = run("--seconds", "1", "-o", str(tmp_path / "t.json"), "--admin-address", admin_address)
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert result.stderr.count("\n") == 1
    assert "400 seconds must be a number" in result.stderr


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    result = run("-o", str(tmp_path / "t.json"), "--admin-address", "127.0.0.1:1")
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert result.stderr.startswith("forebay: no trace from 127.0.0.1:1: Connection refused; give --admin-address")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("seconds", [3, 4])
def test_a_trace_that_is_not_whole_is_one_line_and_no_file(admin_address, tmp_path, seconds):
    path = tmp_path / "t.json"
    result = run("--seconds", str(seconds), "-o", str(path), "--admin-address", admin_address)
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert "no whole trace" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize("address", ["localhost", "localhost:http", ":8002"])
def test_an_address_that_is_none_is_said_in_its_own_words(tmp_path, address):
    result = run("-o", str(tmp_path / "t.json"), "--admin-address", address)
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert f"'{address}' is not host:port" in result.stderr
