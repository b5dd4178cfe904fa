"""Video that a device decodes into its own memory: the contract. Implementation: `engines.cuda.video`.

A decoder takes whole access units in the order of decoding and gives the picture of each before the next one, as planes
in device memory, also where pictures are shown in another order. The caller knows from the bitstream when a picture is
missing; the decoder does not look for that.

Thread: one at a time, attached to the device.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from forebay_server.engines.device import Device, DeviceBuffer, DeviceKind, DeviceStream
from forebay_server.engines.errors import BackendUnavailableError

VideoCodecName = Literal["h264", "hevc"]


@dataclass(frozen=True, slots=True)
class VideoPlanes:
    """A decoded picture: rows of luma, then rows of chroma of half the size, U before V, 8 bits a sample.

    Attributes:
        buffer: of the device that decodes. Its contents stay until the decoder's next unit.
        luma_offset: of the first sample that is shown.
        chroma_offset: of the first sample of chroma that is shown.
        pitch: bytes from one line to the next, of luma and of chroma.
        size: (width, height) in pixels, cropped as the stream says.
        matrix: matrix_coefficients of ITU-T H.273; 2 where the stream does not say.
        is_full_range: whether luma is 0 to 255 and not 16 to 235.
        is_damaged: the decoder has met an error in it.
    """

    buffer: DeviceBuffer
    luma_offset: int
    chroma_offset: int
    pitch: int
    size: tuple[int, int]
    matrix: int
    is_full_range: bool
    is_damaged: bool


class DeviceVideoDecoder(Protocol):
    """A decoder of one stream at a time.

    Attributes:
        device_stream: on which the planes are complete when work that is enqueued after `picture` begins.
    """

    @property
    def device_stream(self) -> DeviceStream:
        """See above."""
        ...

    def submit(self, data: bytes) -> bool:
        """Have an access unit in Annex B form decoded, and return whether it has a picture.

        Raises:
            ExecutionError: the unit cannot be decoded. The next one has to be a keyframe.

        Blocks: for some 100 us.
        """
        ...

    def picture(self) -> VideoPlanes:
        """Return the picture of the unit that was submitted last and has one. At most once for each unit.

        Raises:
            ExecutionError: it cannot be had. The next unit has to be a keyframe.

        Blocks: until it is decoded, which takes some milliseconds. Releases the GIL.
        """
        ...

    def reset(self) -> None:
        """Forget the stream: the next unit is the first one of another, of the same size and no more references."""
        ...

    def close(self) -> None:
        """Free everything. Idempotent. Blocks: for tens of milliseconds."""
        ...


def open_video(device: Device, codec: VideoCodecName, size: tuple[int, int], references: int) -> DeviceVideoDecoder:
    """Open a decoder of one stream at a time, on the calling thread.

    Args:
        device: decodes.
        codec: of the streams.
        size: (width, height) of their pictures as coded, before cropping; others are an ExecutionError.
        references: pictures that the streams keep at most.

    Raises:
        BackendUnavailableError: this device does not decode such video.
        DeviceMemoryError: it has no memory for it.

    Blocks: for 50 ms, and 260 ms where other processes do the same (H200).
    """
    if device.kind is not DeviceKind.CUDA:
        raise BackendUnavailableError(f"{device.name} does not decode video")
    from forebay_server.engines.cuda.video import open_cuda_video

    return open_cuda_video(device, codec, size, references)
