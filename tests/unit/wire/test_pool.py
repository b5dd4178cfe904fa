"""The messages are in a pool of our own, so that others may define the same names in protobuf's default pool."""

import re
import subprocess
import sys

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format, message_factory

from forebay.wire import POOL, frames_pb2, health_pb2, inference_pb2
from tests.support.repository import ROOT
from tests.support.wire import MODULES, filled

# As another package does at import, with other content: package `inference` and `grpc.health.v1`, default pool.
FOREIGN = """
from google.protobuf import descriptor_pb2, descriptor_pool
for name, package, message in [
    ("grpc_service.proto", "inference", "ModelInferRequest"),
    ("grpc_health/v1/health.proto", "grpc.health.v1", "HealthCheckRequest"),
]:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    file.message_type.add(name=message).field.add(name="other", number=9, type=9, label=1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
OURS = """
from forebay.wire import frames_pb2, health_pb2, inference_pb2
assert health_pb2.HealthCheckRequest(service="a").SerializeToString() == b"\\n\\x01a"
assert inference_pb2.ModelInferRequest(model_name="a").SerializeToString() == b"\\n\\x01a"
"""


@pytest.mark.parametrize("code", [FOREIGN + OURS, OURS + FOREIGN], ids=["foreign-first", "ours-first"])
def test_other_definitions_of_the_same_names_share_the_process(code):
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_nothing_of_ours_is_in_the_default_pool(module):
    assert module.DESCRIPTOR.pool is POOL
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName(module.DESCRIPTOR.name)


def test_classes_are_found_by_name_in_our_pool():
    found = POOL.FindMessageTypeByName("inference.ModelInferRequest")
    assert message_factory.GetMessageClass(found) is inference_pb2.ModelInferRequest


def test_a_message_travels_in_an_any():
    packed = any_pb2.Any()
    packed.Pack(health_pb2.HealthCheckRequest(service="a"))
    unpacked = health_pb2.HealthCheckRequest()
    assert packed.Unpack(unpacked)
    assert unpacked.service == "a"
    as_json = json_format.MessageToDict(packed, descriptor_pool=POOL)
    assert as_json == {"@type": "type.googleapis.com/grpc.health.v1.HealthCheckRequest", "service": "a"}


def test_a_descriptor_can_be_read_as_a_message():
    file = descriptor_pb2.FileDescriptorProto()
    frames_pb2.DESCRIPTOR.CopyToProto(file)
    assert file.package == "forebay.v1"
    assert [service.name for service in file.service] == ["FrameInference"]


def test_a_message_is_copied_through_bytes_between_two_pools():
    """As a program does that holds tritonclient's class of the same message."""
    file = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(file)
    other = descriptor_pool.DescriptorPool()
    other.Add(file)
    theirs = message_factory.GetMessageClass(other.FindMessageTypeByName("grpc.health.v1.HealthListResponse"))
    ours = filled(health_pb2.HealthListResponse)
    assert theirs.FromString(ours.SerializeToString()).SerializeToString() == ours.SerializeToString()


def test_protos_import_each_other_alone_by_their_paths():
    """So `-I forebay/protos` is enough for any compiler; well-known types are in the default pool, not in ours."""
    folder = ROOT / "protos"
    paths = sorted(folder.rglob("*.proto"))
    imports = {name for path in paths for name in re.findall(r'^import "(.*?)"', path.read_text(), re.MULTILINE)}
    assert imports
    assert imports <= {path.relative_to(folder).as_posix() for path in paths}


def test_every_proto_names_its_go_package():
    for path in (ROOT / "protos").rglob("*.proto"):
        folder = path.parent.relative_to(ROOT / "protos")
        assert f'option go_package = "forebay/protos/{folder};' in path.read_text(), path
