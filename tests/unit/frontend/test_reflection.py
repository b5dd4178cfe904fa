"""The answers of server reflection: all files of the protocols, under their published names, and nothing else."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2, inference_pb2, reflection_v1alpha_pb2
from forebay.wire import reflection_pb2 as pb
from forebay_server.service.frontend.control import reflection
from forebay_server.service.frontend.control.descriptors import Descriptors
from forebay_server.service.frontend.control.reflection_answers import SHOWN_CHARACTERS, ReflectionAnswers
from forebay_server.service.frontend.messages import MAX_PARSED_BYTES, MessageError
from tests.support.repository import ROOT
from tests.support.wire import MODULES, filled

DESCRIPTORS = Descriptors(module.DESCRIPTOR for module in reflection._FILES)
ANSWERS = ReflectionAnswers(DESCRIPTORS)
NOT_FOUND, INVALID_ARGUMENT = grpc.StatusCode.NOT_FOUND.value[0], grpc.StatusCode.INVALID_ARGUMENT.value[0]


def answer(**question):
    return pb.ServerReflectionResponse.FromString(
        ANSWERS.answer(pb.ServerReflectionRequest(**question).SerializeToString())
    )


def files(**question):
    """The files of an answer, in its order."""
    given_files = answer(**question).file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in given_files]


def published():
    """The names of all files in protos/ but those of the ONNX format, which is not on the wire."""
    folder = ROOT / "protos"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.proto") if path.parent.name != "onnx"}


def test_the_files_are_those_of_protos_under_the_same_names():
    assert set(DESCRIPTORS.with_imports) == published()


@pytest.mark.parametrize("name", sorted(published()))
def test_a_file_comes_with_all_that_it_imports(name):
    found = files(file_by_filename=name)
    assert found[0].name == name
    names = [file.name for file in found]
    assert len(set(names)) == len(names)
    assert {each for file in found for each in file.dependency} == set(names[1:])


def test_a_pool_of_the_files_makes_the_same_messages():
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(files(file_containing_symbol="inference.GRPCInferenceService")):
        pool.Add(file)
    theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfigResponse"))
    ours = filled(inference_pb2.ModelConfigResponse)
    assert theirs.FromString(ours.SerializeToString()).SerializeToString() == ours.SerializeToString()


def symbols_of(file):
    """Every full name in a file, by protobuf's own descriptors, and the enums' values."""
    waiting, enums = list(file.message_types_by_name.values()), list(file.enum_types_by_name.values())
    for message in waiting:
        waiting += message.nested_types
        enums += message.enum_types
        yield message.full_name
        yield from (part.full_name for part in (*message.fields, *message.oneofs))
    for enum in enums:
        yield enum.full_name
        yield from (f"{enum.full_name.rpartition('.')[0]}.{value.name}" for value in enum.values)
    for service in file.services_by_name.values():
        yield service.full_name
        yield from (method.full_name for method in service.methods)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_name_leads_to_its_file(module):
    expected = {symbol: module.DESCRIPTOR.name.rpartition("/")[2] for symbol in symbols_of(module.DESCRIPTOR)}
    assert {symbol: files(file_containing_symbol=symbol)[0].name.rpartition("/")[2] for symbol in expected} == expected


def test_all_names_are_counted():
    every = {symbol for module in MODULES for symbol in symbols_of(module.DESCRIPTOR)}
    assert set(DESCRIPTORS.file_of) == every
    assert {"forebay.v1.Frame", "inference.ModelConfigResponse", "inference.ModelConfig"} <= DESCRIPTORS.messages


def test_services_are_listed_by_their_full_names():
    assert [each.name for each in answer(list_services="*").list_services_response.service] == [
        "forebay.v1.FrameInference",
        "forebay.v1.StreamControl",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "xds.service.orca.v3.OpenRcaService",
    ]


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ({"file_by_filename": "frames.proto"}, NOT_FOUND, "no file 'frames.proto' on this server"),
        ({"file_by_filename": ""}, NOT_FOUND, "no file ''"),
        ({"file_containing_symbol": "forebay.v1"}, NOT_FOUND, "no symbol 'forebay.v1'"),
        ({"file_containing_symbol": ""}, NOT_FOUND, "no symbol ''"),
        ({"file_containing_symbol": "x" * 5000}, NOT_FOUND, f"no symbol '{'x' * SHOWN_CHARACTERS}' on"),
        (
            {"file_containing_extension": pb.ExtensionRequest(containing_type="a.B", extension_number=-1)},
            NOT_FOUND,
            "'a.B' has no extension -1",
        ),
        ({"all_extension_numbers_of_type": "forebay.v1.Encoding"}, NOT_FOUND, "no message 'forebay.v1.Encoding'"),
        ({}, INVALID_ARGUMENT, "give file_by_filename, file_containing_symbol"),
    ],
    ids=str,
)
def test_a_question_without_an_answer_gets_an_error(question, code, words):
    error = answer(**question).error_response
    assert error.error_code == code
    assert words in error.error_message


def test_no_message_has_extensions():
    found = answer(all_extension_numbers_of_type="forebay.v1.Frame").all_extension_numbers_response
    assert found == pb.ExtensionNumberResponse(base_type_name="forebay.v1.Frame")


@given(
    st.builds(
        pb.ServerReflectionRequest,
        host=st.text(),
    ),
    st.sampled_from(
        ["file_by_filename", "file_containing_symbol", "all_extension_numbers_of_type", "list_services", None]
    ),
    st.text() | st.sampled_from(sorted(DESCRIPTORS.file_of)),
)
def test_every_answer_says_what_was_asked(question, kind, name):
    if kind:
        setattr(question, kind, name)
    found = pb.ServerReflectionResponse.FromString(ANSWERS.answer(question.SerializeToString()))
    assert (found.valid_host, found.original_request) == (question.host, question)
    assert found.WhichOneof("message_response")


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x22\x01\xff", b"\x0a" + b"a" * MAX_PARSED_BYTES], ids=["no", "utf", "long"]
)
def test_bytes_that_are_no_question_are_refused(data):
    with pytest.raises(MessageError):
        ANSWERS.answer(data)


PUBLIC = {
    "ServerReflectionRequest": {
        "host": 1,
        "file_by_filename": 3,
        "file_containing_symbol": 4,
        "file_containing_extension": 5,
        "all_extension_numbers_of_type": 6,
        "list_services": 7,
    },
    "ExtensionRequest": {"containing_type": 1, "extension_number": 2},
    "ServerReflectionResponse": {
        "valid_host": 1,
        "original_request": 2,
        "file_descriptor_response": 4,
        "all_extension_numbers_response": 5,
        "list_services_response": 6,
        "error_response": 7,
    },
    "FileDescriptorResponse": {"file_descriptor_proto": 1},
    "ExtensionNumberResponse": {"base_type_name": 1, "extension_number": 2},
    "ListServiceResponse": {"service": 1},
    "ServiceResponse": {"name": 1},
    "ErrorResponse": {"error_code": 1, "error_message": 2},
}
"""The messages of the public protocol: every field and its number."""


@pytest.mark.parametrize("module", [pb, reflection_v1alpha_pb2], ids=["v1", "v1alpha"])
def test_the_messages_have_the_numbers_of_the_public_protocol(module):
    messages = module.DESCRIPTOR.message_types_by_name
    found = {name: {field.name: field.number for field in kind.fields} for name, kind in messages.items()}
    assert found == PUBLIC


def test_both_versions_are_the_same_but_for_their_package():
    texts = [str(_without_names(module)).replace(".v1alpha.", ".v1.") for module in (pb, reflection_v1alpha_pb2)]
    assert texts[0] == texts[1]


def _without_names(module):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    for field in ("name", "package", "options"):
        file.ClearField(field)
    return file


class RefusedError(Exception):
    pass


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.7:5000", "ipv6:%5B2001:db8::1%5D:5000"])
def test_a_client_on_another_machine_needs_the_header(peer):
    """`is_restricted` false: no header was asked for."""

    async def abort(code, message, _):
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "restricted_protocol reflection:KEY=VALUE" in message
        raise RefusedError

    context = SimpleNamespace(peer=lambda: peer, abort=abort)
    with pytest.raises(RefusedError):
        asyncio.run(reflection.Reflection(None, None, is_restricted=False).info(None, context))


def test_frames_come_first_in_an_answer_about_them():
    assert [file.name for file in files(file_containing_symbol="forebay.v1.FrameInference.Stream")] == [
        "forebay/v1/frames.proto"
    ]
    assert frames_pb2.DESCRIPTOR.name == "forebay/wire/frames.proto"  # the name in generated code is another
