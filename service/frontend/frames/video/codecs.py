"""Who decodes a stream: the GPU of its model where it can, and else the CPU (ADR 0215).

The GPU decodes the common kind: 8 bits, 4:2:0, whole pictures, of a model that runs on a GPU and takes
pictures. Everything else is libavcodec's, and so is a stream whose decoder is not there yet, or cannot be had now, or
refuses it (`substitute`): it changes at a keyframe.

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
from forebay_server.service.frontend.frames.video.codec import LibavCodec, Pictures, VideoCodec
from forebay_server.service.frontend.frames.video.decoder_store import DecoderKind, DecoderStore
from forebay_server.service.frontend.frames.video.device_codec import DeviceCodec, is_for_devices
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.substitute import WithSubstitute
from forebay_server.service.models.description import ModelDescription

HEADROOM_BYTES = 512 << 20
"""Of the GPU's memory, which no decoder takes: models and their kernels need it."""

MOST_DECODERS = 192
"""Of GPUs, in all processes of a server. An H200 had no channels left for more than about 208."""

VideoDecode = Literal["auto", "cpu"]


@dataclass(frozen=True, slots=True)
class VideoStream:
    """A stream, as a decoder needs it that joins.

    Attributes:
        codec: FFmpeg's name.
        sets: returns its parameter sets in Annex B form, which later units need not have; may be empty.
        model: that its pictures are for.
    """

    codec: CodecName
    sets: Callable[[], bytes]
    model: ModelDescription


class VideoCodecs:
    """See the module.

    Args:
        choice: *cpu*: never a GPU.
        most_pixels: larger pictures are an error.
        most_decoders: of GPUs, at a time; the CPU decodes further streams.
        clock: source of monotonic nanoseconds.
        open_gpu: opens a GPU by its number.
        open_decoder: opens a decoder of it.
    """

    def __init__(
        self,
        choice: VideoDecode,
        most_pixels: int,
        most_decoders: int,
        clock: Clock,
        open_gpu: Callable[[int], Device] = lambda index: open_device("cuda", clock=MonotonicClock(), index=index),
        open_decoder: Callable[[Device, VideoCodecName, tuple[int, int], int], DeviceVideoDecoder] = open_video,
    ) -> None:
        self._choice = choice
        self._most_pixels = most_pixels
        self._clock = clock
        self._open_gpu = open_gpu
        self._open_decoder = open_decoder
        self._gpus: dict[int, Device] = {}  # written by the store's thread
        self.store = DecoderStore(self._make, most_decoders, clock)

    def open(self, stream: VideoStream, sequence: Sequence) -> VideoCodec:
        """Open a decoder of a stream, on the worker that has its turn. Blocks: for milliseconds."""
        model = stream.model
        if self._choice == "cpu" or model.device_kind is not DeviceKind.CUDA or model.image is None:
            return self._open_cpu(stream)
        kind = _kind(stream, sequence)
        found = None if kind is None else self._on_gpu(kind, stream, sequence)
        return found or UntilReady(self._open_cpu(stream), self.store, kind, sequence)

    def _open_cpu(self, stream: VideoStream) -> LibavCodec:
        return LibavCodec(stream.codec, self._most_pixels, stream.sets())

    def _on_gpu(self, kind: DecoderKind, stream: VideoStream, sequence: Sequence) -> VideoCodec | None:
        decoder, image = self.store.take(kind), stream.model.image
        if decoder is None or image is None:
            return None
        device = self._gpus[kind.gpu]
        try:
            device.attach_thread()
            codec = DeviceCodec(device, decoder, image, sequence, stream.sets())
        except EngineError as error:
            self.store.discard(decoder)
            self.store.failed(kind, error)
            return None
        except BaseException:
            self.store.discard(decoder)
            raise
        codec.on_close = lambda is_sound: self._take_back(kind, decoder, is_sound=is_sound)
        return WithSubstitute(codec, lambda: self._open_cpu(stream), sequence, self._clock)

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


def most_of_process(front_ends: int | Literal["auto"]) -> int:
    """Return how many decoders one process may have; `front_ends`: a number where there are several processes."""
    return MOST_DECODERS // max(1, 0 if front_ends == "auto" else front_ends)


def _kind(stream: VideoStream, sequence: Sequence) -> DecoderKind | None:
    """Return the decoder of a GPU that a stream should have; None: it is of a kind that not every GPU decodes."""
    if not is_for_devices(sequence):
        return None
    gpus = stream.model.groups[0].gpus
    size = sequence.width, sequence.height
    return DecoderKind(gpus[0] if gpus else 0, stream.codec, size, sequence.most_buffered)


class UntilReady:
    """The CPU's decoder of a stream of a model on a GPU: it asks for the GPU's decoder at each keyframe.

    Args:
        cpu: decodes; owned from now on.
        store: has the decoders of GPUs.
        kind: the decoder that the stream should have; None: none, as long as its pictures are of this kind.
        sequence: of the stream.
    """

    def __init__(self, cpu: LibavCodec, store: DecoderStore, kind: DecoderKind | None, sequence: Sequence) -> None:
        self._cpu = cpu
        self._store = store
        self._kind = kind
        self._sequence = sequence
        self.is_elsewhere = False
        self._is_ready()

    @property
    def reorder_frames(self) -> int:
        """Of the CPU's decoder."""
        return self._cpu.reorder_frames

    def takes(self, sequence: Sequence) -> bool:
        """Whether it goes on: the GPU's decoder is not there yet, and the pictures are as at the start."""
        return sequence == self._sequence and not self._is_ready()

    def decode(self, data: bytes, number: int) -> Pictures:
        """Decode a unit and return the pictures that can be shown now. Raises DamagedUnitError."""
        return self._cpu.decode(data, number)

    def settle(self) -> None:
        """Nothing to wait for."""

    def drain(self) -> Pictures:
        """Return the pictures that are held back. The next unit must be a keyframe."""
        return self._cpu.drain()

    def close(self) -> None:
        """Free its memory, and order nothing any more. Idempotent."""
        if self._kind is not None:
            self._store.withdraw(self._kind, self)
        self._cpu.close()

    def _is_ready(self) -> bool:
        return self._kind is not None and self._store.order(self._kind, self)
