"""A device's decoder of a stream, and the CPU's in its place where the device refuses the stream.

A unit at which decoding begins is decoded by the CPU if the device makes no picture of it: its pictures may have what
this engine lacks, although nothing in the parameter sets says so. A unit that the CPU refuses too is damaged, and the
device goes on. The device is asked again after a while, at a keyframe: no frame is lost by that.

Owner: one thread at a time, the worker that has the stream's turn.
"""

from collections.abc import Callable

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, Pictures, VideoCodec
from forebay_server.service.frontend.frames.video.device_codec import DeviceCodec
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence

ASK_AGAIN_NS = 30_000_000_000


class WithSubstitute:
    """See the module, and `codec.VideoCodec`.

    Args:
        device: decodes; owned from now on.
        open_cpu: opens the CPU's decoder, with the parameter sets that are in force.
        sequence: of the stream.
        clock: source of monotonic nanoseconds.

    Attributes:
        device: closed once the CPU decodes.
    """

    def __init__(
        self, device: DeviceCodec, open_cpu: Callable[[], VideoCodec], sequence: Sequence, clock: Clock
    ) -> None:
        self.device = device
        self._open_cpu = open_cpu
        self._sequence = sequence
        self._clock = clock
        self._codec: VideoCodec = device
        self._until_ns = 0

    @property
    def reorder_frames(self) -> int:
        """By how many pictures the next one may be held back, as far as is known."""
        return self._codec.reorder_frames

    @property
    def is_elsewhere(self) -> bool:
        """Whether the device decodes."""
        return self._codec.is_elsewhere

    def takes(self, sequence: Sequence) -> bool:
        """Whether it goes on from the next keyframe on."""
        if self._codec is self.device:
            return self.device.takes(sequence)
        return sequence == self._sequence and self._clock.now_ns() < self._until_ns

    def decode(self, data: bytes, number: int) -> Pictures:
        """Decode a unit and return the pictures that can be shown now. Raises DamagedUnitError."""
        try:
            return self._codec.decode(data, number)
        except DamagedUnitError:
            if self._codec is not self.device or not self.device.is_joining:
                raise
        cpu = self._open_cpu()
        try:
            pictures = cpu.decode(data, number)
        except BaseException:
            cpu.close()
            raise
        self._codec, self._until_ns = cpu, self._clock.now_ns() + ASK_AGAIN_NS
        self.device.close()
        return pictures

    def settle(self) -> None:
        """Wait until pictures that were placed are in their targets. Raises ServiceError: they will not be."""
        self._codec.settle()

    def drain(self) -> Pictures:
        """Return the pictures that are held back. The next unit must be a keyframe."""
        return self._codec.drain()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._codec.close()
