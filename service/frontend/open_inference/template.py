"""Everything about an Open Inference request but its data: checked once, and cached for all equal requests.

The requests of a client differ only in the id and the data. So the checks of parameters, names, datatypes, shapes and
outputs (`service.frontend.open_inference.checks`) make a `CallTemplate`, which `service.frontend.open_inference.lookup`
caches; the next request with the same head reuses it. Pure.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference.options import CallOptions
from forebay_server.service.frontend.open_inference.region_range import RegionRange
from forebay_server.service.frontend.open_inference.schema import ModelSchema, TensorSchema
from forebay_server.service.frontend.open_inference.typed import LongContents

LIGHT_BYTES = 1 << 20  # of data that are copied: 0.1 ms
FINAL_RESPONSE = "triton_final_response"


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """One output of a response.

    Attributes:
        tensor: which.
        classes: send that many classes instead of the tensor; 0 for the tensor.
        region: where to put it instead of into the response; None for the response.
    """

    tensor: TensorSchema
    classes: int = 0
    region: RegionRange | None = None


@dataclass(frozen=True, slots=True)
class InputSource:
    """Where the data of one input are; exactly one of the last three is set.

    Attributes:
        tensor: which.
        elements: how many it has, all rows together.
        nbytes: that its data must have; None for BYTES.
        raw_index: in raw_input_contents.
        region: in shared memory.
        typed: sent as typed contents; made raw, unless they are long.
    """

    tensor: TensorSchema
    elements: int
    nbytes: int | None
    raw_index: int | None = None
    region: RegionRange | None = None
    typed: Bytes | LongContents | None = None


@dataclass(frozen=True, eq=False)
class CallTemplate:
    """A checked request without id and data.

    Attributes:
        schema: the model.
        version: as the request names it; may be empty.
        options: parameters.
        rows: of the request.
        shapes: of every input as the engine takes it, without rows, in the engine's order; None for one left out.
        sources: of the data of those that are not left out, in the engine's order.
        wanted: outputs in the order asked for.
        batch_key: requests of one key may share a batch.
    """

    schema: ModelSchema
    version: str
    options: CallOptions
    rows: int
    shapes: tuple[tuple[int, ...] | None, ...]
    sources: tuple[InputSource, ...]
    wanted: tuple[WantedOutput, ...]
    batch_key: Hashable

    @cached_property
    def is_plain(self) -> bool:
        """Whether all data are the raw contents, in the engine's order, one for each input."""
        return all(source.raw_index == index for index, source in enumerate(self.sources))

    @cached_property
    def is_light(self) -> bool:
        """Whether the event loop makes a request of it in less than a millisecond, for all data."""
        return all(
            source.nbytes is not None and not isinstance(source.typed, LongContents) for source in self.sources
        ) and (sum(source.nbytes or 0 for source in self.sources) <= LIGHT_BYTES)

    @cached_property
    def has_regions(self) -> bool:
        """Whether an output is wanted in shared memory."""
        return any(wanted.region is not None for wanted in self.wanted)

    @cached_property
    def has_light_answer(self) -> bool:
        """Whether the event loop makes a response in less than a millisecond, for all outputs."""
        return not any(wanted.classes or wanted.tensor.datatype == "BYTES" for wanted in self.wanted)

    @cached_property
    def response_heads(self) -> tuple[bytes, bytes] | None:
        """The beginning of every response, alone and in a stream; None if it depends on the outputs."""
        if any(wanted.classes or wanted.region or not wanted.tensor.is_fixed for wanted in self.wanted):
            return None
        response = pb.ModelInferResponse(model_name=self.schema.name, model_version=self.schema.version)
        for wanted in self.wanted:
            tensor = wanted.tensor
            shape = (self.rows, *tensor.shape) if self.schema.has_batch else tensor.shape
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        alone = response.SerializeToString()
        response.parameters[FINAL_RESPONSE].bool_param = True
        return alone, response.SerializeToString()
