"""Decoders of video for the simulated device: libavcodec decodes, and planes lie in device memory as NVDEC's do."""

import av

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.errors import ExecutionError
from forebay_server.engines.video import VideoPlanes
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs
from tests.support.clock import ManualClock

MOST = 1 << 24
MARGIN = 32  # bytes between the lines, as engines have them


class SimulatedVideoDecoder:
    """See engines.video.DeviceVideoDecoder. A unit of `BROKEN` fails.

    Attributes:
        is_closed: whether it was.
        streams: that it was used for.
        is_refusing: whether it refuses every unit; `refused` counts them.
        loss: that asking for the next picture raises; None: it can be had.
        submitted: units so far.
    """

    BROKEN = b"\0\0\0\1broken"

    def __init__(self, device, codec, size, references):
        self.device, self.codec, self.size, self.references = device, codec, size, references
        self.device_stream = device.create_stream("video")
        width, height = size
        self.pitch = width + MARGIN
        nbytes = self.pitch * (height + height // 2)
        self.host, self.buffer = device.alloc_host(nbytes), device.alloc_device(nbytes)
        self.is_closed, self.streams, self.is_refusing, self.refused, self.loss = False, 0, False, 0, None
        self.submitted = 0
        self._context, self._frames = None, []

    def submit(self, data):
        """Decode a unit; return whether it has a picture."""
        self.submitted += 1
        self._frames = []
        if self.is_refusing:
            self.refused += 1
            raise ExecutionError("pictures with more references than the decoder is for")
        if data.endswith(self.BROKEN):
            raise ExecutionError("broken")
        if self._context is None:
            self._context, self.streams = av.CodecContext.create(self.codec, "r"), self.streams + 1
            self._context.thread_count, self._context.options = 1, {"flags": "+low_delay"}
        try:
            self._frames = self._context.decode(av.Packet(data))[-1:]
        except (av.FFmpegError, ValueError) as error:
            raise ExecutionError(str(error)) from error
        return bool(self._frames)

    def picture(self):
        """Return its picture."""
        if self.loss is not None:
            error, self.loss = self.loss, None
            raise error
        return self._planes(self._frames.pop())

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


class Gpu:
    """A simulated GPU with decoders, and what happened to them.

    Args:
        machine: of the GPU; None: one of its own.
        most: decoders at a time.

    Attributes:
        decoders: that were made.
        error: that making another one raises; None: it is made.
    """

    INDEX = 1

    def __init__(self, machine=None, most=2):
        self.clock = ManualClock()
        self.device = SimulatedDevice(clock=MonotonicClock(), machine=machine)  # its copies take time
        self.decoders, self.error = [], None
        self.codecs = VideoCodecs("auto", MOST, most, self.clock, self._device, self._decoder)

    def _device(self, index):
        assert index == self.INDEX
        self.device.attach_thread()
        return self.device

    def _decoder(self, *arguments):
        if self.error is not None:
            raise self.error
        self.decoders.append(SimulatedVideoDecoder(*arguments))
        return self.decoders[-1]
