"""A request's head, everything but its raw contents, without the typed contents that make it long. Pure.

Protobuf parses a head on the event loop and in C, where no thread helps: 16 MiB of typed numbers take it up to 140 ms.
They stay where they were received, and a worker reads them (`service.frontend.open_inference.typed`).
"""

from google.protobuf.message import DecodeError

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import MAX_FIELDS, MAX_PARSED_BYTES, Bytes, next_field, varint

_TAG_INPUTS, _TAG_CONTENTS = 0x2A, 0x2A  # ModelInferRequest.inputs; InferInputTensor.contents
_SHORT_BYTES = 1024  # an input of this size is kept whole
TypedContents = dict[int, memoryview]
"""By the index of an input: its InferTensorContents, serialised; views of the received bytes."""


def parse_head(head: bytes) -> tuple[pb.ModelInferRequest, TypedContents]:
    """Return a head as a message, and the typed contents that were left out of it.

    Raises:
        InvalidRequestError: the bytes are no request, or have too much beside the data.
    """
    contents: TypedContents = {}
    if len(head) > MAX_PARSED_BYTES:
        try:
            head = _without_contents(head, contents)
        except IndexError:
            raise _no_request() from None
    try:
        return pb.ModelInferRequest.FromString(head), contents
    except DecodeError:
        raise _no_request() from None


def _no_request() -> InvalidRequestError:
    return InvalidRequestError("the message is no ModelInferRequest")


def _without_contents(head: bytes, contents: TypedContents) -> bytes:
    """Return a head without typed contents, which go to `contents`. Raises IndexError for invalid bytes."""
    view = memoryview(head)
    rest: list[Bytes] = []
    position = index = fields = 0
    while position < len(head):
        begin = position
        tag, start, position = next_field(head, begin)
        fields += 1
        if tag == _TAG_INPUTS:
            if position - start > _SHORT_BYTES:
                parts, found, more = _split(view[start:position])
                fields += more
                contents.update(() if found is None else ((index, found),))
                rest += (varint(tag), varint(sum(map(len, parts))), *parts)
            else:
                rest.append(view[begin:position])
            index += 1
        else:
            rest.append(view[begin:position])
        if fields > MAX_FIELDS:
            raise InvalidRequestError(f"the message has more than {MAX_FIELDS} inputs, outputs or parameters")
    if position > len(head):
        raise IndexError
    nbytes = sum(map(len, rest))
    if nbytes > MAX_PARSED_BYTES:
        raise InvalidRequestError(f"the message has {nbytes} bytes beside its data; it may have {MAX_PARSED_BYTES}")
    return b"".join(rest)


def _split(tensor: memoryview) -> tuple[list[memoryview], memoryview | None, int]:
    """Return an input's fields but its contents, the contents, and how many fields there are: no more are counted."""
    rest: list[memoryview] = []
    found: list[memoryview] = []
    position = fields = 0
    while position < len(tensor) and fields <= MAX_FIELDS:
        begin = position
        tag, start, position = next_field(tensor, begin)
        fields += 1
        if tag == _TAG_CONTENTS:
            found.append(tensor[start:position])
        else:
            rest.append(tensor[begin:position])
    if position > len(tensor):
        raise IndexError
    if not found:
        return rest, None, fields
    return rest, found[0] if len(found) == 1 else memoryview(b"".join(found)), fields  # given twice: merged
