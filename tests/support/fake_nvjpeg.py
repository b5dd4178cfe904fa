"""A stand-in for libnvjpeg, in C: the functions that the server calls, as NVIDIA's header declares them.

A file is accepted if it begins with FF D8. With a third byte of 1 it is of a kind that the hardware does not decode,
and with one of 2 it fails its batch. Decoding writes the file's last byte to the first byte of its pixels.
"""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCE = r"""
#include <stddef.h>
typedef struct { unsigned char* channel[4]; size_t pitch[4]; } Image;
int created = 0, destroyed = 0, states = 0, initialized = 0, backend = -1, create_status = 0, memory_status = 0;
unsigned int flags = 0;
int preallocated[5];
size_t last_pitch = 0;
static const unsigned char* parsed;
int nvjpegCreateEx(int b, void* d, void* p, unsigned int f, void** handle) {
    backend = b; flags = f; *handle = &created;
    if (create_status == 0) ++created;
    return create_status;
}
int nvjpegDestroy(void* handle) { ++destroyed; return 0; }
int nvjpegJpegStateCreate(void* handle, void** state) { ++states; *state = &states; return 0; }
int nvjpegJpegStateDestroy(void* state) { --states; return 0; }
int nvjpegJpegStreamCreate(void* handle, void** stream) { *stream = &parsed; return 0; }
int nvjpegJpegStreamDestroy(void* stream) { return 0; }
int nvjpegJpegStreamParseHeader(void* handle, const unsigned char* data, size_t length, void* stream) {
    parsed = data;
    return length > 3 && data[0] == 0xff && data[1] == 0xd8 ? 0 : 3;
}
int nvjpegDecodeBatchedSupported(void* handle, void* stream, int* is_refused) {
    *is_refused = parsed[2] == 1;
    return 0;
}
int nvjpegDecodeBatchedInitialize(void* handle, void* state, int count, int threads, int format) {
    initialized = format == 5 ? count : -1;
    return 0;
}
int nvjpegDecodeBatchedPreAllocate(void* handle, void* state, int count, int width, int height, int chroma,
                                   int format) {
    preallocated[0] = count; preallocated[1] = width; preallocated[2] = height;
    preallocated[3] = chroma; preallocated[4] = format;
    return memory_status;
}
int nvjpegDecodeBatched(void* handle, void* state, const unsigned char** data, const size_t* lengths, Image* images,
                        void* stream) {
    for (int i = 0; i < initialized; ++i) if (data[i][2] == 2) return 3;
    for (int i = 0; i < initialized; ++i) {
        images[i].channel[0][0] = data[i][lengths[i] - 1];
        last_pitch = images[i].pitch[0];
    }
    return stream ? 0 : 2;
}
"""


def build() -> Path | None:
    """Compile it and return its path, in a folder of its own; None without a C++ compiler."""
    if shutil.which("g++") is None:
        return None
    folder = Path(tempfile.mkdtemp())
    (folder / "nvjpeg.c").write_text(_SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libnvjpeg.so", "nvjpeg.c"], cwd=folder, check=True, timeout=120)
    return folder / "libnvjpeg.so"


def number(library, name: str) -> int:
    """A number that the stand-in keeps."""
    return ctypes.c_int.in_dll(library, name).value


def set_number(library, name: str, value: int) -> None:
    ctypes.c_int.in_dll(library, name).value = value
