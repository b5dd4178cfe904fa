"""Server reflection as tools that others wrote use it: grpcurl, and grpc-reflection-js on Node."""

import json
import re
import shutil
import subprocess

import pytest

from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.repository import ROOT
from tests.support.serve_process import serve

SERVICES = [
    "forebay.v1.FrameInference",
    "forebay.v1.StreamControl",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "xds.service.orca.v3.OpenRcaService",
]
CLIENT = """
const grpc = require('@grpc/grpc-js');
const { Client } = require('grpc-reflection-js');
async function main() {
  const client = new Client(process.argv[2], grpc.credentials.createInsecure());
  const names = await client.listServices();
  const methods = {};
  for (const name of names) {
    const root = await client.fileContainingSymbol(name);
    methods[name] = root.lookupService(name).methodsArray.map((method) => method.name);
  }
  const root = await client.fileByFilename('forebay/v1/frames.proto');
  const fields = root.lookupType('forebay.v1.Open').fieldsArray.map((field) => field.name);
  console.log(JSON.stringify({ names, methods, fields }));
  process.exit(0);
}
main().catch((error) => { console.error(error); process.exit(1); });
"""
NODE_PACKAGES = ["@grpc/grpc-js@1.14.7", "grpc-reflection-js@0.3.0"]
UNREACHABLE = re.compile("ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN")


def run(*command, cwd=None):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=HANG_GUARD_S)


@pytest.fixture(scope="module")
def node_client(tmp_path_factory):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or npm here: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    ended = run("npm", "install", "--no-save", "--no-audit", "--no-fund", *NODE_PACKAGES, cwd=folder)
    if ended.returncode and UNREACHABLE.search(ended.stderr):
        pytest.skip("npm reaches no registry")
    assert ended.returncode == 0, ended.stderr
    (folder / "client.cjs").write_text(CLIENT)
    return folder / "client.cjs"


def published(name):
    """The methods of a service, as its .proto has them."""
    package, _, service = name.rpartition(".")
    block = re.compile(rf"^service {service} {{(.*?)^}}", re.MULTILINE | re.DOTALL)
    for path in (ROOT / "protos").rglob("*.proto"):
        text = path.read_text()
        if f"package {package};" in text and (found := block.search(text)):
            return re.findall(r"^\s*rpc (\w+)", found[1], re.MULTILINE)
    return []


@on_loop(guard_s=4 * HANG_GUARD_S)
async def test_node_finds_every_service_and_method(node_client):
    async with serve("--reflection") as server:
        ended = run("node", str(node_client), await server.wait_ready())
        assert await server.end() == 0
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["names"] == SERVICES
    assert found["methods"] == {name: published(name) for name in SERVICES}
    assert found["fields"][:3] == ["model", "version", "stream_id"]


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="no grpcurl here: its project has binaries")
@on_loop(guard_s=4 * HANG_GUARD_S)
async def test_grpcurl_lists_describes_and_calls():
    async with serve("--reflection") as server:
        address = await server.wait_ready()
        ask = ("grpcurl", "-plaintext")
        listed = run(*ask, address, "list").stdout.split()
        described = run(*ask, address, "describe", "forebay.v1.Open").stdout
        health = run(*ask, address, "grpc.health.v1.Health/Check").stdout
        model = run(*ask, "-d", '{"name": "detector"}', address, "inference.GRPCInferenceService/ModelMetadata").stdout
        unknown = run(*ask, address, "describe", "forebay.v1.Nothing")
        assert await server.end() == 0
    assert listed == SERVICES
    assert ".forebay.v1.Encoding encoding = 4;" in described
    assert json.loads(health) == {"status": "SERVING"}
    assert json.loads(model)["name"] == "detector"
    assert unknown.returncode != 0
    assert "not found: forebay.v1.Nothing" in unknown.stderr
