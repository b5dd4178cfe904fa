"""Requests of other processes: where their inputs lie, and where their outputs go.

A frame here belongs to a link, the connection of one front-end process, and to a token of it. Its memory is the
front-end process's: to release it marks only that the inputs have been read. The answer gives the memory back.

Thread: one at a time, as `service.request.FrameBuffer`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from forebay_server.engines.device import HostBuffer
from forebay_server.service.pipeline.unbound import ArraysFrame, Inputs

if TYPE_CHECKING:
    from forebay_server.service.group.arrays_share import ArraysShare
    from forebay_server.service.group.front_end_link import FrontEndLink


class SharedFrame:
    """Inputs in the memory file of a version.

    Attributes:
        link: of the front-end process.
        token: of the request there.
        host: memory that the inputs are in.
        offsets: of each input in `host`.
        output_offset: of the place for its outputs in the memory file.
        is_released: whether its inputs have been read.
    """

    __slots__ = ("host", "is_released", "link", "offsets", "output_offset", "token")

    def __init__(
        self, link: "FrontEndLink", token: int, host: HostBuffer, offsets: tuple[int, ...], output_offset: int
    ) -> None:
        self.link = link
        self.token = token
        self.host = host
        self.offsets = offsets
        self.output_offset = output_offset
        self.is_released = False

    def release(self) -> None:
        """Mark that the inputs have been read. Idempotent."""
        self.is_released = True


class SharedArrays(ArraysFrame):
    """Inputs of varying shapes in their place in the memory file of a version, where the outputs go as well.

    Attributes:
        link: of the front-end process.
        token: of the request there.
        is_released: whether its inputs have been read.
        outputs_offset: of its outputs in the outputs area; 0: they are in their place, or there are none.
    """

    __slots__ = ("_place", "_share", "is_released", "link", "outputs_offset", "token")

    def __init__(self, link: "FrontEndLink", token: int, share: "ArraysShare", place: memoryview) -> None:
        self.link = link
        self.token = token
        self.is_released: bool = False
        self.outputs_offset = 0
        self._share = share
        self._place = place

    @property
    def arrays(self) -> Inputs:
        """The inputs, read-only; numbers are views of the place."""
        return self._share.inputs(self._place)

    def write(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Put the outputs where the front-end process finds them. Raises OverloadedError if there is no room."""
        self.outputs_offset = self._share.write(self._place, outputs)

    def release(self) -> None:
        """Mark that the inputs have been read. Idempotent."""
        self.is_released = True
