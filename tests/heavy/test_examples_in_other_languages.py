"""The examples in Node, Go and C++: built with the commands of examples/README.md and run against real servers.

Each runs where its tools are installed. Go's packages are Debian's where these are: their gRPC is of 2020, before the
functions of connect.go, and takes messages of an older protobuf alone, so that connect.go is replaced there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as wire
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.repository import ROOT
from tests.support.scripted_server import ScriptedServerThread
from tests.support.serve_process import serve

EXAMPLES = ROOT / "examples"
TOOLS = {
    "node": ("node", "npm"),
    "go": ("go", "protoc"),
    "cpp": ("g++", "pkg-config", "protoc", "grpc_cpp_plugin"),
}
PACKAGES = {
    "node": "nodejs npm",
    "go": "golang-go protobuf-compiler golang-google-protobuf-dev golang-google-grpc-dev",
    "cpp": "g++ pkg-config libgrpc++-dev protobuf-compiler-grpc",
}
HEADINGS = {"node": "Node", "go": "Go", "cpp": "C++"}
DEBIAN_GO = Path("/usr/share/gocode")
DEBIAN_GRPC = DEBIAN_GO / "src" / "google.golang.org" / "grpc"
DEBIAN_CONNECT = """package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
)

type codec struct{}

func (codec) Marshal(v interface{}) ([]byte, error)      { return proto.Marshal(v.(proto.Message)) }
func (codec) Unmarshal(data []byte, v interface{}) error { return proto.Unmarshal(data, v.(proto.Message)) }
func (codec) Name() string                               { return "proto" }

func init() { encoding.RegisterCodec(codec{}) }

func connect(server string) (*grpc.ClientConn, error) {
	return grpc.Dial(server, grpc.WithInsecure())
}
"""
UNREACHABLE = re.compile("ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|dial tcp")
PHOTO = ROOT / "tests" / "model" / "astronaut.jpg"


def commands(language):
    """The commands of a language, as the page has them: those that build, and the last one, that runs."""
    page = (EXAMPLES / "README.md").read_text()
    block = re.search(rf"^### {re.escape(HEADINGS[language])}$.*?^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    lines = block.replace("\\\n", " ").strip().splitlines()
    assert lines[0] == f"cd examples/{language}"
    return lines[1:-1], lines[-1]


def go_from_debian(lines, folder):
    """The commands for a Go without modules, whose packages are Debian's, and the folder and environment for them."""
    (folder / "connect.go").write_text(DEBIAN_CONNECT)
    (folder / "go.mod").unlink()
    root = folder.parent.parent / "go"
    place = root / "src" / "example.com" / "folder"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    (root / "src" / "protos").symlink_to(folder.parent.parent / "protos")  # ../../protos
    kept = [re.sub(r"@v\S+", "", line) for line in lines if not line.startswith(("go mod", "export "))]
    tools = str(root / "bin")
    environment = {"GO111MODULE": "off", "GOPATH": f"{root}:{DEBIAN_GO}", "GOBIN": tools, "GOFLAGS": ""}
    return kept, environment | {"PATH": f"{tools}:{os.environ['PATH']}"}, place


class Example:
    """A built example. `run` sends a folder to a server."""

    def __init__(self, language, folder):
        missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"no {', '.join(missing)} here: apt-get install {PACKAGES[language]}")
        shutil.copytree(ROOT / "protos", folder / "protos")
        self._place = folder / "examples" / language
        shutil.copytree(EXAMPLES / language, self._place, ignore=shutil.ignore_patterns("node_modules"))
        lines, self._last = commands(language)
        self._environment = {**os.environ, "GOCACHE": str(folder / "cache")}
        if language == "go" and DEBIAN_GRPC.exists():
            lines, more, self._place = go_from_debian(lines, self._place)
            self._environment |= more
        ended = self._shell("set -eu\n" + "\n".join(lines), timeout_s=600)
        if ended.returncode and (found := UNREACHABLE.search(ended.stderr)):
            pytest.skip(f"the packages of this language are out of reach: {found[0]}")
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def run(self, pictures, address):
        """Return the exit code and the lines on both outputs."""
        line = self._last.replace("FOLDER", str(pictures)).replace("127.0.0.1:8001", address)
        ended = self._shell(line, timeout_s=HANG_GUARD_S)
        return ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines()

    def _shell(self, text, timeout_s):
        return subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=self._place,
            env=self._environment | {"PWD": str(self._place)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


@pytest.fixture(scope="module", params=TOOLS)
def example(request, tmp_path_factory):
    return Example(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def pictures(tmp_path):
    """Three files of one byte each, for servers that do not look at them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("c.jpg", "a.jpg", "b.jpeg"):
        (folder / name).write_bytes(name[:1].encode())
    (folder / "notes.txt").write_text("no picture")
    return folder


@on_loop(guard_s=4 * HANG_GUARD_S)
async def test_a_real_server_finds_the_person_and_refuses_the_broken_file(example, tmp_path):
    shutil.copy(PHOTO, tmp_path / "1.jpg")
    cv2.imwrite(str(tmp_path / "2.jpg"), np.full((240, 320, 3), 127, np.uint8))
    (tmp_path / "3.jpg").write_bytes(PHOTO.read_bytes()[:1000])
    async with serve() as server:
        code, lines, errors = example.run(tmp_path, await server.wait_ready())
        assert await server.end() == 0
    assert re.fullmatch(r"frame 1 \(1\.jpg\): person 0\.\d\d at \(\d+, \d+, \d+, \d+\)", lines[0])
    assert "frame 2 (2.jpg): nothing" in lines
    assert lines[-1].startswith("frame 3 (3.jpg): INVALID: ")
    assert code == 1
    assert errors[0].startswith("3 frames: 2 OK")


def person():
    return wire.Detection(label="person", score=0.75, box_pixels=wire.Box(x_min=1, y_min=2, x_max=3, y_max=4))


LINE = "frame {} ({}): person 0.75 at (1, 2, 3, 4)"
ALL = [LINE.format(1, "a.jpg"), LINE.format(2, "b.jpeg"), LINE.format(3, "c.jpg")]


async def moves_after_each_frame(call):
    """Answer one frame, and ask the client to come back."""
    await call.accept()
    frame = await call.read()
    await call.reconnect()
    while frame is not None:
        await call.answer(frame, detections=[person()])
        frame = await call.read()


async def is_full_at_first(call):
    await call.accept()
    while (frame := await call.read()) is not None:
        if call.index == 0:
            await call.answer(frame, wire.STATUS_OVERLOADED, "no room", retry_after_ms=10)
        else:
            await call.answer(frame, detections=[person()])


async def goes_away_at_first(call):
    await call.accept()
    frame = await call.read()
    await call.answer(frame, detections=[person()])
    if call.index == 0:
        await call.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    while (frame := await call.read()) is not None:
        await call.answer(frame, detections=[person()])


@pytest.mark.parametrize("script", [moves_after_each_frame, is_full_at_first, goes_away_at_first])
def test_every_file_is_answered_by_a_server_that_drains_is_full_or_goes_away(example, pictures, script):
    with ScriptedServerThread(script) as server:
        code, lines, errors = example.run(pictures, server.address)
    assert (code, lines) == (0, ALL), errors
    assert errors == ["3 frames: 3 OK"]
    assert {(each.open.encoding, each.open.delivery) for each in server.calls} == {
        (wire.ENCODING_JPEG, wire.DELIVERY_EVERY)
    }
    assert not server.calls[0].open.HasField("resume_from")
    assert all(each.open.resume_from == (each.seqs[0] if each.seqs[0] > 1 else 0) for each in server.calls if each.seqs)
    assert len(server.calls) > 1 or script is moves_after_each_frame  # all three may have been sent by then


def test_a_folder_without_pictures_is_one_line(example, tmp_path):
    code, lines, errors = example.run(tmp_path, "127.0.0.1:1")
    assert (code, lines, errors) == (1, [], [f"{tmp_path} has no .jpg or .jpeg files"])


def test_a_wrong_model_is_one_line(example, pictures):
    async def refuses(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "there is no model 'detector'")

    with ScriptedServerThread(refuses) as server:
        code, lines, errors = example.run(pictures, server.address)
    assert (code, lines, errors) == (1, [], ["there is no model 'detector'"])
    assert len(server.calls) == 1
