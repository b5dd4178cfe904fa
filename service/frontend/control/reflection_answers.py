"""The answer of server reflection to one question. Pure.

An answer is the question's echo and the contents, which are serialized once: the bytes of two protobuf messages of one
type, one after the other, are the bytes of both merged. So a question costs the event loop a look-up and a copy.
"""

from collections.abc import Callable

import grpc

from forebay.wire import reflection_pb2 as pb
from forebay_server.service.frontend.control.descriptors import Descriptors
from forebay_server.service.frontend.messages import parse

SHOWN_CHARACTERS = 128  # of a name in the message of an error; the whole name is in the echo
NO_QUESTION = "give file_by_filename, file_containing_symbol, all_extension_numbers_of_type or list_services"


class ReflectionAnswers:
    """See the module.

    Args:
        descriptors: the files to answer from.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self._file_of = descriptors.file_of
        self._messages = descriptors.messages
        self._services = _services(descriptors.services)
        self._files = {name: _files(files) for name, files in descriptors.with_imports.items()}
        self._contents: dict[str | None, Callable[[pb.ServerReflectionRequest], bytes]] = {
            "list_services": lambda _: self._services,
            "file_by_filename": self._file_named,
            "file_containing_symbol": self._file_with,
            "file_containing_extension": _no_extension,
            "all_extension_numbers_of_type": self._extension_numbers,
            None: lambda _: _error(grpc.StatusCode.INVALID_ARGUMENT, NO_QUESTION),
        }

    def answer(self, data: bytes) -> bytes:
        """Return the bytes of the answer. Raises MessageError if the bytes are no question."""
        question = parse(pb.ServerReflectionRequest, data)
        echo = pb.ServerReflectionResponse(valid_host=question.host, original_request=question)
        return echo.SerializeToString() + self._contents[question.WhichOneof("message_request")](question)

    def _file_named(self, question: pb.ServerReflectionRequest) -> bytes:
        name = question.file_by_filename
        return self._files.get(name) or _not_found(f"no file {_shown(name)}")

    def _file_with(self, question: pb.ServerReflectionRequest) -> bytes:
        name = question.file_containing_symbol
        return self._files.get(self._file_of.get(name, "")) or _not_found(f"no symbol {_shown(name)}")

    def _extension_numbers(self, question: pb.ServerReflectionRequest) -> bytes:
        name = question.all_extension_numbers_of_type
        if name not in self._messages:
            return _not_found(f"no message {_shown(name)}")
        numbers = pb.ExtensionNumberResponse(base_type_name=name)
        return pb.ServerReflectionResponse(all_extension_numbers_response=numbers).SerializeToString()


def _services(names: tuple[str, ...]) -> bytes:
    listed = pb.ListServiceResponse(service=[pb.ServiceResponse(name=name) for name in names])
    return pb.ServerReflectionResponse(list_services_response=listed).SerializeToString()


def _files(files: tuple[bytes, ...]) -> bytes:
    given = pb.FileDescriptorResponse(file_descriptor_proto=files)
    return pb.ServerReflectionResponse(file_descriptor_response=given).SerializeToString()


def _no_extension(question: pb.ServerReflectionRequest) -> bytes:
    wanted = question.file_containing_extension
    return _not_found(f"{_shown(wanted.containing_type)} has no extension {wanted.extension_number}")


def _shown(name: str) -> str:
    return repr(name[:SHOWN_CHARACTERS])


def _not_found(message: str) -> bytes:
    return _error(grpc.StatusCode.NOT_FOUND, f"{message} on this server; list_services has its services")


def _error(code: grpc.StatusCode, message: str) -> bytes:
    error = pb.ErrorResponse(error_code=code.value[0], error_message=message)
    return pb.ServerReflectionResponse(error_response=error).SerializeToString()
