"""A stand-in for libnvcuvid, in C: the functions that the server calls, with the records of NVIDIA's headers.

A unit begins with a command byte: `S` has parameter sets (then width, height, right and bottom edge shown, and least
surfaces, two bytes each, the higher first), `P` a picture, `2` two pictures, `N` none, `X` fails. The last byte of a
picture's unit is its decode status. The pixels of surface n are n.
"""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCE = r"""
#include <string.h>
typedef struct { int codec; unsigned int rate[2]; unsigned char progressive, luma, chroma_depth, surfaces;
  unsigned int width, height; struct { int left, top, right, bottom; } display; int chroma; unsigned int bitrate;
  struct { int x, y; } aspect; struct { unsigned char format : 3, full : 1, zero : 4, primaries, transfer, matrix; } s;
  unsigned int length; } Format;
typedef struct { int width, height, index, field, bottom, second; unsigned char rest[4400]; } Picture;
typedef struct { unsigned long flags, size; const unsigned char* payload; long long timestamp; } Packet;
typedef struct { int codec; unsigned int surfaces, clock, threshold, delay, reserved[5]; void* user;
  int (*sequence)(void*, Format*); int (*picture)(void*, Picture*); void* display; void* more[7]; void* ext; } Parser;
typedef struct { unsigned long width, height, surfaces; int codec, chroma; unsigned long flags, depth, intra, max_width,
  max_height, reserved; struct { short l, t, r, b; } display; int output, deinterlace; unsigned long target_width,
  target_height, outputs; void* lock; struct { short l, t, r, b; } rect; unsigned long more[5]; } Create;
typedef struct { int progressive, second, top, unpaired; unsigned int flags, zero; unsigned long long raw;
  unsigned int pitch, format; unsigned long long out; unsigned int out_pitch, reserved; void* stream;
  unsigned int more[46]; void* pointers[2]; } Process;
typedef struct { int codec, chroma; unsigned int depth, r1[3]; unsigned char supported, r2[3];
  unsigned int width, height, macroblocks; unsigned short least_width, least_height; unsigned int r3[11]; } Caps;
typedef struct { int status; unsigned int reserved[31]; void* pointers[8]; } Status;

int decoders = 0, parsers = 0, mapped = 0, create_status = 0, parse_flags = 0, next = 0, last_status = 2, display = 1;
unsigned long created[6];
void* last_stream = 0;
static Parser parser;
static unsigned char pixels[64][4096];

int cuvidGetDecoderCaps(Caps* caps) {
    caps->supported = caps->codec == 4 || caps->codec == 8;
    caps->width = 4096; caps->height = 4096; caps->macroblocks = 65536;
    caps->least_width = 48; caps->least_height = 16;
    return 0;
}
int cuvidCreateVideoParser(void** made, Parser* given) {
    parser = *given; ++parsers; *made = &parser; display = given->display != 0 || given->delay != 0; return 0;
}
int cuvidDestroyVideoParser(void* given) { --parsers; return 0; }
int cuvidCreateDecoder(void** made, Create* info) {
    if (create_status) return create_status;
    created[0] = info->width; created[1] = info->height; created[2] = info->surfaces;
    created[3] = info->target_width; created[4] = info->target_height; created[5] = info->outputs;
    ++decoders; *made = &decoders; return 0;
}
int cuvidDestroyDecoder(void* given) { --decoders; return mapped ? 1 : 0; }
static int shown(void) {
    Picture picture;
    memset(&picture, 0, sizeof picture);
    picture.index = next = (next + 1) % 64;
    return parser.picture(parser.user, &picture) ? 0 : 999;
}
int cuvidParseVideoData(void* given, Packet* packet) {
    const unsigned char* data = packet->payload;
    parse_flags = (int)packet->flags;
    if (data[0] == 'X') return 1;
    if (data[0] == 'N') return 0;
    if (data[0] == 'S') {
        Format format;
        memset(&format, 0, sizeof format);
        format.codec = parser.codec; format.chroma = 1; format.s.matrix = 1; format.s.full = 1;
        format.width = data[1] << 8 | data[2]; format.height = data[3] << 8 | data[4];
        format.display.top = 2; format.display.left = 4;
        format.display.right = data[5] << 8 | data[6]; format.display.bottom = data[7] << 8 | data[8];
        format.surfaces = data[10];
        if (parser.sequence(parser.user, &format) < 1) return 0;
    }
    last_status = data[packet->size - 1];
    if (data[0] == '2' && shown()) return 0;
    shown();
    return 0;
}
int cuvidDecodePicture(void* decoder, Picture* picture) { return decoder == &decoders ? 0 : 1; }
int cuvidMapVideoFrame64(void* decoder, int index, unsigned long long* address, unsigned int* pitch, Process* process) {
    if (mapped) return 1;
    ++mapped; last_stream = process->stream;
    memset(pixels[index], index, sizeof pixels[index]);
    *address = (unsigned long long)pixels[index]; *pitch = 64; return 0;
}
int cuvidUnmapVideoFrame64(void* decoder, unsigned long long address) { return mapped-- == 1 ? 0 : 1; }
int cuvidGetDecodeStatus(void* decoder, int index, Status* status) { status->status = last_status; return 0; }
"""


def build() -> Path | None:
    """Compile it and return its path, in a folder of its own; None without a C compiler."""
    if shutil.which("gcc") is None:
        return None
    folder = Path(tempfile.mkdtemp())
    (folder / "nvcuvid.c").write_text(_SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libnvcuvid.so", "nvcuvid.c"], cwd=folder, check=True, timeout=120)
    return folder / "libnvcuvid.so"


def number(library, name):
    """A number that the stand-in keeps."""
    return ctypes.c_int.in_dll(library, name).value


def set_number(library, name, value):
    ctypes.c_int.in_dll(library, name).value = value


def unit(command, *, size=(64, 32), shown=(60, 30), surfaces=4, status=2):
    """A unit of the stand-in's own kind."""
    fields = b"".join(value.to_bytes(2, "big") for value in (*size, *shown, surfaces))
    return command.encode() + (fields if command == "S" else b"") + bytes([status])
