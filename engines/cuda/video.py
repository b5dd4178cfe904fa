"""Video on an NVIDIA GPU (engines.video): NVDEC, and its pictures as buffers of the device."""

from contextlib import ExitStack

from forebay_server.engines.cuda.handles import CudaBuffer
from forebay_server.engines.cuda.nvdec import NvDecoder
from forebay_server.engines.device import Device
from forebay_server.engines.device_cuda import CudaDevice
from forebay_server.engines.errors import ExecutionError, MisuseError
from forebay_server.engines.video import DeviceVideoDecoder, VideoCodecName, VideoPlanes


class _Surface(CudaBuffer):
    """A mapped picture: memory of the decoder, which takes it back itself."""

    def _free(self) -> None:
        """Nothing is ours."""


class CudaVideoDecoder:
    """See engines.video.DeviceVideoDecoder."""

    def __init__(self, device: CudaDevice, codec: VideoCodecName, size: tuple[int, int], references: int) -> None:
        self._device = device
        with ExitStack() as undo:
            self.device_stream = device.create_stream("video")
            undo.callback(self.device_stream.close)
            self._decoder = NvDecoder(codec, size, references, self.device_stream.handle)
            undo.callback(self._decoder.close)
            self._undo = undo.pop_all()
        self._surface: _Surface | None = None

    def submit(self, data: bytes) -> bool:
        """Have an access unit decoded."""
        self._forget()
        try:
            return self._decoder.submit(data)
        except ExecutionError:
            self._device.raise_if_lost()
            raise

    def picture(self) -> VideoPlanes:
        """Return its picture."""
        try:
            mapped = self._decoder.map_picture()
        except ExecutionError:
            self._device.raise_if_lost()
            raise
        self._surface = _Surface(self._device, mapped.address, 0)
        return VideoPlanes(
            self._surface,
            mapped.luma_offset,
            mapped.chroma_offset,
            mapped.pitch,
            mapped.size,
            mapped.matrix,
            mapped.is_full_range,
            mapped.is_damaged,
        )

    def reset(self) -> None:
        """Forget the stream."""
        self._forget()
        self._decoder.reset()

    def close(self) -> None:
        """Free everything."""
        self._forget()
        self._undo.close()

    def _forget(self) -> None:
        if self._surface is not None:
            self._surface.close()
            self._surface = None


def open_cuda_video(
    device: Device, codec: VideoCodecName, size: tuple[int, int], references: int
) -> DeviceVideoDecoder:
    """See engines.video.open_video."""
    if not isinstance(device, CudaDevice):
        raise MisuseError(f"{device.name} is no GPU")
    device.attach_thread()
    return CudaVideoDecoder(device, codec, size, references)
