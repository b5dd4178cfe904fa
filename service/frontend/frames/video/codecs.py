"""Who decodes a stream: the GPU of its model where it can, and else the CPU (ADR 0215).

The GPU decodes the common kind: 8 bits, 4:2:0, whole pictures, of a model that runs on a GPU and takes
pictures. Everything else is libavcodec's, and so is a stream whose decoder is not there yet, or cannot be had now: it
changes at a keyframe.

Thread: any worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import Device, DeviceKind
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, EngineError
from forebay_server.engines.video import DeviceVideoDecoder, VideoCodecName, open_video
from forebay_server.service.clock import Clock
from forebay_server.service.frontend.frames.video.access_unit import CodecName
from forebay_server.service.frontend.frames.video.codec import LibavCodec, VideoCodec
from forebay_server.service.frontend.frames.video.decoder_store import DecoderKind, DecoderStore
from forebay_server.service.frontend.frames.video.device_codec import DeviceCodec, is_for_devices
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.models.description import ModelDescription

HEADROOM_BYTES = 512 << 20
"""Of the GPU's memory, which no decoder takes: models and their kernels need it."""

VideoDecode = Literal["auto", "cpu"]


@dataclass(frozen=True, slots=True)
class VideoStream:
    """The constant facts of a stream, for its decoder.

    Attributes:
        codec: FFmpeg's name.
        sets: parameter sets in Annex B form that come before the first unit; may be empty.
        model: that its pictures are for.
    """

    codec: CodecName
    sets: bytes
    model: ModelDescription


class VideoCodecs:
    """See the module.

    Args:
        choice: *cpu*: never a GPU.
        most_pixels: larger pictures are an error.
        most_streams: decoders at a time.
        clock: source of monotonic nanoseconds.
        open_gpu: opens a GPU by its number.
        open_decoder: opens a decoder of it.
    """

    def __init__(
        self,
        choice: VideoDecode,
        most_pixels: int,
        most_streams: int,
        clock: Clock,
        open_gpu: Callable[[int], Device] = lambda index: open_device("cuda", clock=MonotonicClock(), index=index),
        open_decoder: Callable[[Device, VideoCodecName, tuple[int, int], int], DeviceVideoDecoder] = open_video,
    ) -> None:
        self._choice = choice
        self._most_pixels = most_pixels
        self._open_gpu = open_gpu
        self._open_decoder = open_decoder
        self._gpus: dict[int, Device] = {}  # written by the store's thread
        self.store = DecoderStore(self._make, most_streams, clock)

    def open(self, stream: VideoStream, sequence: Sequence) -> VideoCodec:
        """Open a decoder of a stream, on the worker that has its turn. Blocks: for milliseconds."""
        kind = self._kind(stream, sequence)
        if kind is not None:
            found = self._on_gpu(kind, stream, sequence)
            return found or _UntilReady(self, kind, stream, sequence)
        return LibavCodec(stream.codec, self._most_pixels, stream.sets)

    @property
    def most_pixels(self) -> int:
        """Of a picture."""
        return self._most_pixels

    def _kind(self, stream: VideoStream, sequence: Sequence) -> DecoderKind | None:
        """Return the decoder of a GPU that a stream should have; None: none."""
        model = stream.model
        is_on_gpu = model.device_kind is DeviceKind.CUDA and model.image is not None
        if self._choice == "cpu" or not is_on_gpu or not is_for_devices(sequence):
            return None
        gpus = model.groups[0].gpus
        return DecoderKind(gpus[0] if gpus else 0, stream.codec, (sequence.width, sequence.height), sequence.references)

    def _on_gpu(self, kind: DecoderKind, stream: VideoStream, sequence: Sequence) -> VideoCodec | None:
        decoder, image = self.store.take(kind), stream.model.image
        if decoder is None or image is None:
            return None
        device = self._gpus[kind.gpu]
        try:
            device.attach_thread()
            codec = DeviceCodec(device, decoder, image, sequence, stream.sets)
        except EngineError:
            self.store.discard(decoder)
            return None
        codec.on_close = lambda is_sound: self._take_back(kind, decoder, is_sound=is_sound)
        return codec

    def _take_back(self, kind: DecoderKind, decoder: DeviceVideoDecoder, *, is_sound: bool) -> None:
        if is_sound:
            self.store.give_back(kind, decoder)
        else:
            self.store.discard(decoder)

    def _make(self, kind: DecoderKind) -> DeviceVideoDecoder:
        """Make a decoder, on the store's thread. Raises EngineError."""
        device = self._gpus.get(kind.gpu)
        if device is None:
            device = self._open_gpu(kind.gpu)
            device.attach_thread()
            support = device.picture_support()
            if not support.planes:
                raise BackendUnavailableError(support.reason)
            self._gpus[kind.gpu] = device
        device.attach_thread()
        memory = device.memory()
        if memory is not None and memory.total_bytes - memory.used_bytes < HEADROOM_BYTES:
            raise DeviceMemoryError(f"{device.name} has too little memory free for a decoder of video")
        return self._open_decoder(device, kind.codec, kind.size, kind.references)


class _UntilReady(LibavCodec):
    """The CPU's decoder of a stream that should have one of a GPU: it asks for it at each keyframe."""

    def __init__(self, codecs: VideoCodecs, kind: DecoderKind, stream: VideoStream, sequence: Sequence) -> None:
        super().__init__(stream.codec, codecs.most_pixels, stream.sets)
        self._store = codecs.store
        self._kind = kind
        self._sequence = sequence
        self._store.order(kind, id(self))

    def takes(self, sequence: Sequence) -> bool:
        """Whether it goes on: the GPU's decoder is not there yet, and the pictures are as at the start."""
        return sequence == self._sequence and not self._store.order(self._kind, id(self))
