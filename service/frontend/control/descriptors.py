"""The files of the protocols on the port, as server reflection gives them. Pure.

A file has the name that it has in protos/, also where another file imports it: generated code has other names. So a
tool that writes the files of a server writes that folder, and a client finds `grpc/health/v1/health.proto` by the name
that it has everywhere.
"""

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

PUBLISHED = "forebay/protos/"  # `go_package` of every file begins so, and then has the file's folder


class Descriptors:
    """See the module.

    Args:
        files: those of the services on the port. The files that they import are found from there.

    Attributes:
        with_imports: name of a file -> that file, and all that it imports, each serialized.
        file_of: full name of a service, method, message, field, oneof, enum or value of an enum -> name of its file.
        services: full names of all services, sorted.
        messages: full names of all messages.
    """

    def __init__(self, files: Iterable[FileDescriptor]) -> None:
        protos: dict[str, FileDescriptorProto] = {}
        for file in files:
            _collect(file, protos)
        self.with_imports = {name: tuple(_with_imports(name, protos)) for name in protos}
        self.file_of = {symbol: name for name, proto in protos.items() for symbol in _symbols(proto)}
        self.services = tuple(
            sorted(f"{proto.package}.{service.name}" for proto in protos.values() for service in proto.service)
        )
        self.messages = frozenset(
            name for proto in protos.values() for name, _ in _messages(proto.message_type, proto.package)
        )


def _collect(file: FileDescriptor, protos: dict[str, FileDescriptorProto]) -> str:
    """Add a file and those that it imports, and return its published name."""
    proto = FileDescriptorProto.FromString(file.serialized_pb)
    folder = proto.options.go_package.partition(";")[0].removeprefix(PUBLISHED)
    name = f"{folder}/{file.name.rpartition('/')[2]}"
    if name not in protos:
        protos[name] = proto
        proto.name = name
        proto.dependency[:] = [_collect(each, protos) for each in file.dependencies]
    return name


def _with_imports(name: str, protos: dict[str, FileDescriptorProto]) -> Iterator[bytes]:
    waiting, given = [name], set[str]()
    while waiting:
        each = waiting.pop()
        if each not in given:
            given.add(each)
            yield protos[each].SerializeToString()
            waiting += protos[each].dependency


def _symbols(proto: FileDescriptorProto) -> Iterator[str]:
    for name, message in _messages(proto.message_type, proto.package):
        yield name
        yield from (f"{name}.{field.name}" for field in message.field)
        yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
        yield from _of_enums(message.enum_type, name)
    yield from _of_enums(proto.enum_type, proto.package)
    for service in proto.service:
        yield f"{proto.package}.{service.name}"
        yield from (f"{proto.package}.{service.name}.{method.name}" for method in service.method)


def _messages(messages: Iterable[DescriptorProto], scope: str) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _messages(message.nested_type, name)


def _of_enums(enums: Iterable[EnumDescriptorProto], scope: str) -> Iterator[str]:
    """Return the names of enums and their values. The values belong to the scope around the enum."""
    for enum in enums:
        yield f"{scope}.{enum.name}"
        yield from (f"{scope}.{value.name}" for value in enum.value)
