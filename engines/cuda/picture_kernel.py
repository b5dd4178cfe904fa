"""The kernel that brings pictures to a model's input, and its arguments. Compiled at start by NVRTC.

One thread makes one pixel of one row: it samples the picture (`Filter`), rounds to bytes, puts the channels in order
and looks their numbers up. The arithmetic is that of the CPU's way: OpenCV's fixed point with 11 bits, Pillow's with
22.

The source is also valid C++ but for its launch, so that tests run it without a GPU (tests/support/picture_kernel.py).
"""

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.pictures import JpegFile, Nv12Planes, PictureForm, PictureRow, matrix_of

BLOCK: Final = (32, 8)
"""Threads of a block: a warp writes 32 pixels of one line side by side."""

NAME: Final = "forebay_pictures"

RGB: Final = 0
NV12: Final = 1
"""`kind` of a picture: interleaved red, green and blue, or two planes."""

PICTURE: Final = np.dtype(
    [
        ("pixels", np.uint64),
        ("chroma", np.uint64),
        ("target", np.uint64),
        ("kind", np.int32),
        ("pitch", np.int32),
        ("width", np.int32),
        ("height", np.int32),
        ("resized_width", np.int32),
        ("resized_height", np.int32),
        ("left", np.int32),
        ("top", np.int32),
        ("filter", np.int32),
        ("reserved", np.int32),
        ("matrix", np.float32, (12,)),
    ]
)
"""`Picture` of the source."""

SOURCE: Final = r"""
struct Picture {
    const unsigned char* pixels;  // interleaved colours, or luma
    const unsigned char* chroma;
    unsigned char* target;  // of the row
    int kind, pitch, width, height, resized_width, resized_height, left, top, filter, reserved;
    float matrix[12];
};

struct Form {
    int width, height, channels, order, is_planar, item_bytes, pad_value, reserved;
    const unsigned char* table;
};

struct Axis {
    int first, second, weight, second_weight;
};

__device__ inline int bounded(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

__device__ inline Axis axis_of(int at, int length, int resized) {
    float place = (float)((at + 0.5) * ((double)length / resized) - 0.5);
    int first = (int)floorf(place);
    place -= first;
    if (first < 0) { first = 0; place = 0.f; }
    if (first >= length - 1) { first = length - 1; place = 0.f; }
    Axis axis;
    axis.first = first;
    axis.second = first + 1 < length ? first + 1 : first;
    axis.weight = (int)rintf((1.f - place) * 2048.f);
    axis.second_weight = (int)rintf(place * 2048.f);
    return axis;
}

__device__ inline int linear(const unsigned char* samples, long long pitch, int step, Axis x, Axis y) {
    const unsigned char* above = samples + y.first * pitch;
    const unsigned char* below = samples + y.second * pitch;
    int first = above[x.first * step] * x.weight + above[x.second * step] * x.second_weight;
    int second = below[x.first * step] * x.weight + below[x.second * step] * x.second_weight;
    return bounded((((y.weight * (first >> 4)) >> 16) + ((y.second_weight * (second >> 4)) >> 16) + 2) >> 2);
}

__device__ inline void coloured(const Picture& picture, int y, int u, int v, int* colours) {
    for (int c = 0; c < 3; ++c) {
        const float* row = picture.matrix + 4 * c;
        colours[c] = bounded((int)rintf(row[0] * y + row[1] * u + row[2] * v + row[3]));
    }
}

__device__ inline void planes_at(const Picture& picture, int at_x, int at_y, int width, int height, int* colours) {
    int half_width = (picture.width + 1) / 2, half_height = (picture.height + 1) / 2;
    Axis x = axis_of(at_x, picture.width, width), y = axis_of(at_y, picture.height, height);
    Axis half_x = axis_of(at_x, half_width, width), half_y = axis_of(at_y, half_height, height);
    int luma = linear(picture.pixels, picture.pitch, 1, x, y);
    int u = linear(picture.chroma, picture.pitch, 2, half_x, half_y);
    int v = linear(picture.chroma + 1, picture.pitch, 2, half_x, half_y);
    coloured(picture, luma, u, v, colours);
}

__device__ inline void pixel_at(const Picture& picture, int x, int y, int* colours) {
    if (picture.kind == 1) {
        planes_at(picture, x, y, picture.width, picture.height, colours);
        return;
    }
    const unsigned char* pixel = picture.pixels + (long long)y * picture.pitch + 3 * x;
    for (int c = 0; c < 3; ++c) colours[c] = pixel[c];
}

struct Window {
    int first, last;
    double center, widened, total;
    bool is_cubic;
};

__device__ inline double weight_at(const Window& window, int source) {
    double x = fabs(source - window.center + 0.5) / window.widened;
    if (!window.is_cubic) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

__device__ inline Window window_of(int at, int length, int resized, bool is_cubic) {
    Window window;
    double scale = (double)length / resized;
    window.is_cubic = is_cubic;
    window.widened = scale > 1.0 ? scale : 1.0;
    double reach = window.widened * (is_cubic ? 2.0 : 1.0);
    window.center = (at + 0.5) * scale;
    int first = (int)(window.center - reach + 0.5), last = (int)(window.center + reach + 0.5);
    window.first = first > 0 ? first : 0;
    window.last = last < length ? last : length;
    window.total = 0.0;
    for (int source = window.first; source < window.last; ++source) window.total += weight_at(window, source);
    return window;
}

__device__ inline int fixed_weight(const Window& window, int source) {
    double weight = weight_at(window, source) / window.total;
    return (int)(weight * 4194304.0 + (weight < 0 ? -0.5 : 0.5));
}

__device__ inline void antialiased(const Picture& picture, int at_x, int at_y, int* colours) {
    bool is_cubic = picture.filter == 2;
    Window x = window_of(at_x, picture.width, picture.resized_width, is_cubic);
    Window y = window_of(at_y, picture.height, picture.resized_height, is_cubic);
    int sums[3] = {1 << 21, 1 << 21, 1 << 21};
    for (int row = y.first; row < y.last; ++row) {
        int across[3] = {1 << 21, 1 << 21, 1 << 21};
        for (int column = x.first; column < x.last; ++column) {
            int weight = fixed_weight(x, column), pixel[3];
            pixel_at(picture, column, row, pixel);
            for (int c = 0; c < 3; ++c) across[c] += weight * pixel[c];
        }
        int weight = fixed_weight(y, row);
        for (int c = 0; c < 3; ++c) sums[c] += weight * bounded(across[c] >> 22);
    }
    for (int c = 0; c < 3; ++c) colours[c] = bounded(sums[c] >> 22);
}

__device__ inline void sampled(const Picture& picture, int at_x, int at_y, int* colours) {
    if (picture.filter != 0) {
        antialiased(picture, at_x, at_y, colours);
    } else if (picture.kind == 1) {
        planes_at(picture, at_x, at_y, picture.resized_width, picture.resized_height, colours);
    } else {
        Axis x = axis_of(at_x, picture.width, picture.resized_width);
        Axis y = axis_of(at_y, picture.height, picture.resized_height);
        for (int c = 0; c < 3; ++c) colours[c] = linear(picture.pixels + c, picture.pitch, 3, x, y);
    }
}

__device__ inline void written(const Form& form, unsigned char* target, long long at, int channel, int value) {
    int entry = channel * 256 + value;
    if (form.item_bytes == 1) target[at] = form.table[entry];
    else if (form.item_bytes == 2) ((unsigned short*)target)[at] = ((const unsigned short*)form.table)[entry];
    else ((unsigned int*)target)[at] = ((const unsigned int*)form.table)[entry];
}

__device__ inline void made(const Picture& picture, const Form& form, int x, int y) {
    int colours[3] = {form.pad_value, form.pad_value, form.pad_value};
    int at_x = x - picture.left, at_y = y - picture.top;
    if (at_x >= 0 && at_y >= 0 && at_x < picture.resized_width && at_y < picture.resized_height) {
        sampled(picture, at_x, at_y, colours);
        if (form.order == 2) colours[0] = (colours[0] * 9798 + colours[1] * 19235 + colours[2] * 3735 + 16384) >> 15;
    }
    for (int c = 0; c < form.channels; ++c) {
        int value = form.order == 1 ? colours[2 - c] : colours[c];
        long long at = form.is_planar ? ((long long)c * form.height + y) * form.width + x
                                      : ((long long)y * form.width + x) * form.channels + c;
        written(form, picture.target, at, c, value);
    }
}

extern "C" __global__ void forebay_pictures(const Picture* pictures, Form form) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < form.width && y < form.height) made(pictures[blockIdx.z], form, x, y);
}
"""

ORDERS: Final = {"RGB": 0, "BGR": 1, "GRAY": 2}
FORM: Final = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("channels", np.int32),
        ("order", np.int32),
        ("is_planar", np.int32),
        ("item_bytes", np.int32),
        ("pad_value", np.int32),
        ("reserved", np.int32),
        ("table", np.uint64),
    ]
)
"""`Form` of the source."""


def form_record(form: PictureForm, table_address: int) -> NDArray[Any]:
    """Return one FORM, shape (1,)."""
    record = np.zeros(1, FORM)
    record[0] = (
        form.width, form.height, form.channels, ORDERS[form.color_order], form.layout == "NCHW", form.table.itemsize,
        form.pad_value, 0, table_address,
    )  # fmt: skip
    return record


def picture_record(picture: PictureRow, pixels: int, target: int) -> tuple[Any, ...]:
    """Return the fields of one PICTURE.

    Args:
        picture: the picture and its place.
        pixels: address of the first byte of its decoded pixels, interleaved red, green and blue; for planes, of their
            buffer.
        target: address of its row.
    """
    source = picture.source
    width, height = source.size
    kind, pitch, chroma = RGB, 3 * width, 0
    matrix: tuple[float, ...] = _NO_MATRIX
    if isinstance(source, Nv12Planes):
        kind, pitch, chroma = NV12, source.pitch, pixels + source.chroma_offset
        pixels += source.luma_offset
        matrix = _matrix(source.shares, is_full_range=source.is_full_range)
    resized = picture.resized
    return (
        pixels, chroma, target, kind, pitch, width, height, resized[0], resized[1], picture.left, picture.top,
        int(picture.filter), 0, matrix,
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _matrix(shares: tuple[float, float], *, is_full_range: bool) -> tuple[float, ...]:
    return tuple(matrix_of(shares, is_full_range=is_full_range).reshape(-1).tolist())


def pixel_bytes(file: JpegFile) -> int:
    """Return how many bytes the decoded pixels of a file take."""
    return 3 * file.size[0] * file.size[1]


_NO_MATRIX: Final = (0.0,) * 12
