"""A decoder of video for the simulated device: libavcodec decodes, and planes lie in device memory as NVDEC's do."""

import av

from forebay_server.engines.errors import ExecutionError
from forebay_server.engines.video import VideoPlanes

MARGIN = 32  # bytes between the lines, as engines have them


class SimulatedVideoDecoder:
    """See engines.video.DeviceVideoDecoder. A unit of `BROKEN` fails.

    Attributes:
        is_closed: whether it was.
        streams: that it was used for.
    """

    BROKEN = b"\0\0\0\1broken"

    def __init__(self, device, codec, size, references):
        self.device, self.codec, self.size, self.references = device, codec, size, references
        self.device_stream = device.create_stream("video")
        width, height = size
        self.pitch = width + MARGIN
        nbytes = self.pitch * (height + height // 2)
        self.host, self.buffer = device.alloc_host(nbytes), device.alloc_device(nbytes)
        self.is_closed, self.streams = False, 0
        self._context = None

    def decode(self, data):
        """Decode a unit and return its picture."""
        if data.endswith(self.BROKEN):
            raise ExecutionError("broken")
        if self._context is None:
            self._context, self.streams = av.CodecContext.create(self.codec, "r"), self.streams + 1
            self._context.thread_count, self._context.options = 1, {"flags": "+low_delay"}
        try:
            frames = self._context.decode(av.Packet(data))
        except (av.FFmpegError, ValueError) as error:
            raise ExecutionError(str(error)) from error
        return [self._planes(frame) for frame in frames[-1:]]

    def reset(self):
        """Forget the stream."""
        self._context = None

    def close(self):
        """Free everything."""
        if not self.is_closed:
            self.is_closed = True
            for each in (self.host, self.buffer, self.device_stream):
                each.close()

    def _planes(self, frame):
        nv12 = frame.reformat(format="nv12").to_ndarray()
        rows, width = nv12.shape
        self.device_stream.sync()
        self.host.write_view().reshape(-1, self.pitch)[:rows, :width] = nv12
        self.device_stream.copy_h2d(self.buffer, self.host, self.host.nbytes)
        chroma = self.pitch * frame.height
        return VideoPlanes(
            self.buffer,
            0,
            chroma,
            self.pitch,
            (frame.width, frame.height),
            int(frame.colorspace),
            int(frame.color_range) == 2,
            is_damaged=bool(frame.is_corrupt),
        )
