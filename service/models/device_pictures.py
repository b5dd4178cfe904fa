"""Whether the devices of a version decode its pictures, and the needs of its lanes and frame buffers then.

Thread: the one that opens the version.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import structlog

from forebay_server.engines.device import Device, DeviceKind
from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.memory import buffer_bytes
from forebay_server.service.pictures.device_picture import FilePlace, file_place
from forebay_server.service.pipeline.arena import input_offsets
from forebay_server.service.pipeline.batch_pictures import HostPictures, LanePictures

log = structlog.get_logger(__name__)

PIXELS_BYTES = 96 << 20
DECODER_BYTES_A_PIXEL = 300
"""Of the largest file: for two rounds of 16 files, 577 MiB with 1920x1088 (docs/adr/0214)."""

ImageDecode = Literal["auto", "cpu", "gpu"]


class FilesMemoryError(DeviceMemoryError):
    """There is too little memory for a version whose devices decode files; without that there may be enough."""


@dataclass(frozen=True, slots=True)
class DevicePictures:
    """The needs of a version.

    Attributes:
        lanes: None: its devices write no pictures.
        files: room for files in frame buffers; None: its devices decode none.
        is_choice: whether the CPU may decode the files as well.
    """

    lanes: LanePictures | None = None
    files: FilePlace | None = None
    is_choice: bool = False

    @contextmanager
    def naming_shortage(self) -> Iterator[None]:
        """Raise FilesMemoryError within the block in the place of a DeviceMemoryError that decoding may have caused."""
        try:
            yield
        except DeviceMemoryError as error:
            if self.files is None or not self.is_choice:
                raise
            raise FilesMemoryError(str(error)) from error


def _has_room(counts: Sequence[tuple[Device, int]], specs: EngineSpecs, file_pixels: int) -> bool:
    """Whether every device has memory for decoding beside the slots of its instances, as far as is known beforehand."""
    each = max(PIXELS_BYTES, 3 * file_pixels) + DECODER_BYTES_A_PIXEL * file_pixels
    for device, count in counts:
        device.attach_thread()
        memory = device.memory()
        needed = count * each + sum(buffer_bytes(specs, count).values())
        if memory is not None and needed > memory.total_bytes - memory.used_bytes:
            return False
    return True


def device_pictures(
    description: ModelDescription,
    counts: Sequence[tuple[Device, int]],
    choice: ImageDecode,
    host: HostPictures | None,
    on_refused: Callable[[int], None],
) -> DevicePictures:
    """Ask the devices of a version what they do with pictures. Blocks: for seconds the first time.

    Args:
        description: completed.
        counts: its devices, and how many instances are on each.
        choice: *cpu* for no device; *gpu* for an error where a GPU cannot.
        host: the CPU's way, for files that a device refuses; None: there is none, so that devices get no files.
        on_refused: see `LanePictures`.

    Raises:
        ConfigError: the choice is *gpu*, and a GPU does not decode.
        EngineError: a device is lost.
    """
    picture, specs = description.image, description.specs
    if choice == "cpu" or picture is None or specs is None or not specs.is_fixed or host is None:
        return DevicePictures()
    supports = [device.picture_support() for device, _ in counts]
    is_gpu = description.device_kind == DeviceKind.CUDA
    reason = next((support.reason for support in supports if not support.files), "")
    if is_gpu and reason:
        if choice == "gpu":
            raise ConfigError(f"{description.name}: image_decode is gpu, but {reason}")
        log.info("JPEG frames are decoded by the CPU", model=description.name, reason=reason)
    if not all(support.planes for support in supports):
        return DevicePictures()
    file_pixels = picture.device_pixels if all(support.files for support in supports) else 0
    if file_pixels and choice == "auto" and not _has_room(counts, specs, file_pixels):
        log.info("JPEG frames are decoded by the CPU", model=description.name, reason="the GPU has too little memory")
        file_pixels = 0
    lanes = LanePictures(picture, file_pixels, host, on_refused)
    if not file_pixels:
        return DevicePictures(lanes)
    row_bytes = tuple(spec.row_bytes for spec in specs.inputs)
    place = file_place(input_offsets(row_bytes)[0], row_bytes, picture.input_index, file_pixels)
    return DevicePictures(lanes, place, is_choice=choice == "auto")
