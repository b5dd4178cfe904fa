"""The library of NVIDIA's video decoders (NVDEC), which the driver brings: its functions and records.

Declared is only the part that is used. The records are those of version 9 of the interface and later ones, which have
put new fields in reserved places only.

Source: NVDECODE API of the Video Codec SDK, cuviddec.h and nvcuvid.h. Calls return a CUresult, 0 for success.
"""

import ctypes
import functools
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_longlong, c_short, c_ubyte, c_uint, c_ulong, c_void_p
from typing import Any, Final

from forebay_server.engines.cuda.bound_library import bound
from forebay_server.engines.errors import BackendUnavailableError

LIBRARY: Final = "libnvcuvid.so.1"
NO_LIBRARY: Final = "the driver's libnvcuvid cannot be loaded"

CODECS: Final = {"h264": 4, "hevc": 8}  # cudaVideoCodec
CHROMA_420: Final = 1  # cudaVideoChromaFormat
PREFER_ENGINES: Final = 4  # cudaVideoCreate_PreferCUVID
TIMESTAMP, END_OF_PICTURE = 2, 8  # CUvideopacketflags
STATUS_ERROR, STATUS_CONCEALED = 8, 9  # cuvidDecodeStatus
OUT_OF_MEMORY: Final = 2  # CUresult
_RESERVED_BYTES: Final = 1024
"""Room behind records that a later driver may have made longer."""


class Caps(Structure):
    """CUVIDDECODECAPS."""

    _fields_ = (
        ("codec", c_int),
        ("chroma", c_int),
        ("depth_minus_8", c_uint),
        ("reserved", c_uint * 3),
        ("is_supported", c_ubyte),
        ("engines", c_ubyte),
        ("formats", c_ubyte * 2),
        ("most_width", c_uint),
        ("most_height", c_uint),
        ("most_macroblocks", c_uint),
        ("least_width", c_short),
        ("least_height", c_short),
        ("more", c_uint * 11),
        ("room", c_ubyte * _RESERVED_BYTES),
    )


class Rectangle(Structure):
    """Sides in pixels."""

    _fields_ = (("left", c_short), ("top", c_short), ("right", c_short), ("bottom", c_short))


class CreateInfo(Structure):
    """CUVIDDECODECREATEINFO."""

    _fields_ = (
        ("width", c_ulong),
        ("height", c_ulong),
        ("surfaces", c_ulong),
        ("codec", c_int),
        ("chroma", c_int),
        ("flags", c_ulong),
        ("depth_minus_8", c_ulong),
        ("is_intra_only", c_ulong),
        ("most_width", c_ulong),
        ("most_height", c_ulong),
        ("reserved", c_ulong),
        ("display", Rectangle),
        ("output_format", c_int),
        ("deinterlace", c_int),
        ("target_width", c_ulong),
        ("target_height", c_ulong),
        ("output_surfaces", c_ulong),
        ("lock", c_void_p),
        ("target", Rectangle),
        ("more", c_ulong * 5),
        ("room", c_ubyte * _RESERVED_BYTES),
    )


class Format(Structure):
    """CUVIDEOFORMAT, of which one is given to the sequence callback."""

    _fields_ = (
        ("codec", c_int),
        ("rate", c_uint * 2),
        ("is_progressive", c_ubyte),
        ("luma_depth_minus_8", c_ubyte),
        ("chroma_depth_minus_8", c_ubyte),
        ("least_surfaces", c_ubyte),
        ("coded_width", c_uint),
        ("coded_height", c_uint),
        ("left", c_int),
        ("top", c_int),
        ("right", c_int),
        ("bottom", c_int),
        ("chroma", c_int),
        ("bit_rate", c_uint),
        ("aspect", c_int * 2),
        ("signal", c_ubyte),  # video_format in 3 bits, then video_full_range_flag
        ("primaries", c_ubyte),
        ("transfer", c_ubyte),
        ("matrix", c_ubyte),
        ("more", c_uint),
    )


class PictureParameters(Structure):
    """The begin of CUVIDPICPARAMS, of which one is given to the decode callback and passed on."""

    _fields_ = (
        ("width_macroblocks", c_int),
        ("height_macroblocks", c_int),
        ("surface", c_int),
        ("is_field", c_int),
        ("is_bottom_field", c_int),
        ("is_second_field", c_int),
    )


class Packet(Structure):
    """CUVIDSOURCEDATAPACKET."""

    _fields_ = (("flags", c_ulong), ("nbytes", c_ulong), ("data", c_void_p), ("timestamp", c_longlong))


class ProcessParameters(Structure):
    """CUVIDPROCPARAMS."""

    _fields_ = (
        ("is_progressive", c_int),
        ("is_second_field", c_int),
        ("is_top_field_first", c_int),
        ("is_unpaired", c_int),
        ("flags", c_uint),
        ("zero", c_uint),
        ("raw_input", ctypes.c_ulonglong),
        ("raw_input_pitch", c_uint),
        ("raw_input_format", c_uint),
        ("raw_output", ctypes.c_ulonglong),
        ("raw_output_pitch", c_uint),
        ("reserved", c_uint),
        ("stream", c_void_p),
        ("more", c_uint * 46),
        ("pointers", c_void_p * 2),
        ("room", c_ubyte * _RESERVED_BYTES),
    )


class Status(Structure):
    """CUVIDGETDECODESTATUS."""

    _fields_ = (
        ("status", c_int),
        ("reserved", c_uint * 31),
        ("pointers", c_void_p * 8),
        ("room", c_ubyte * _RESERVED_BYTES),
    )


OnSequence = CFUNCTYPE(c_int, c_void_p, POINTER(Format))
OnPicture = CFUNCTYPE(c_int, c_void_p, POINTER(PictureParameters))


class ParserParameters(Structure):
    """CUVIDPARSERPARAMS."""

    _fields_ = (
        ("codec", c_int),
        ("most_surfaces", c_uint),
        ("clock_rate", c_uint),
        ("error_threshold", c_uint),
        ("most_display_delay", c_uint),
        ("flags", c_uint),
        ("reserved", c_uint * 4),
        ("user", c_void_p),
        ("on_sequence", OnSequence),
        ("on_picture", OnPicture),
        ("on_display", c_void_p),
        ("more", c_void_p * 7),
        ("extended", c_void_p),
        ("room", c_ubyte * _RESERVED_BYTES),
    )


_P = c_void_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuvidGetDecoderCaps": (POINTER(Caps),),
    "cuvidCreateVideoParser": (POINTER(_P), POINTER(ParserParameters)),
    "cuvidParseVideoData": (_P, POINTER(Packet)),
    "cuvidDestroyVideoParser": (_P,),
    "cuvidCreateDecoder": (POINTER(_P), POINTER(CreateInfo)),
    "cuvidDecodePicture": (_P, POINTER(PictureParameters)),
    "cuvidGetDecodeStatus": (_P, c_int, POINTER(Status)),
    "cuvidMapVideoFrame64": (_P, c_int, POINTER(ctypes.c_ulonglong), POINTER(c_uint), POINTER(ProcessParameters)),
    "cuvidUnmapVideoFrame64": (_P, ctypes.c_ulonglong),
    "cuvidDestroyDecoder": (_P,),
}


_QUICK = frozenset(("cuvidParseVideoData", "cuvidDecodePicture", "cuvidGetDecodeStatus", "cuvidUnmapVideoFrame64"))
"""Calls of 3 to 40 us keep the interpreter's lock: in a busy process to get it back takes longer than the call."""


@functools.cache
def load() -> Any:  # noqa: ANN401 - a library
    """Return the library. Raises BackendUnavailableError where there is none."""
    try:
        return bind(LIBRARY)
    except (OSError, AttributeError) as error:
        raise BackendUnavailableError(f"{NO_LIBRARY} ({str(error).splitlines()[0][:200]})") from error


def bind(path: str) -> Any:  # noqa: ANN401 - a library
    """Return the library at a path, with its functions declared. Raises OSError and AttributeError."""
    return bound(path, _FUNCTIONS, _QUICK)
