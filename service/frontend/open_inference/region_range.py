"""Where a request says that a tensor lies in shared memory. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.open_inference.options import value_of


@dataclass(frozen=True, slots=True)
class RegionRange:
    """A tensor's range of shared memory, as a request names it."""

    region: str
    offset: int
    byte_size: int


def region_range(parameters: Mapping[str, pb.InferParameter]) -> RegionRange | None:
    """Return a tensor's range in shared memory; None if there is none. Raises InvalidRequestError."""
    if not parameters or "shared_memory_region" not in parameters:
        return None
    region = value_of(parameters["shared_memory_region"], ("string_param",), "shared_memory_region")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidRequestError("'shared_memory_byte_size' must be given with 'shared_memory_region'")
    byte_size = value_of(parameters["shared_memory_byte_size"], ("int64_param",), "shared_memory_byte_size")
    offset: bool | int | float | str = 0
    if "shared_memory_offset" in parameters:
        offset = value_of(parameters["shared_memory_offset"], ("int64_param",), "shared_memory_offset")
    return RegionRange(str(region), int(offset), int(byte_size))
