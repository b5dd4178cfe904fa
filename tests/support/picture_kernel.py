"""The kernel of engines/cuda/picture_kernel.py on the CPU: its source compiled as C++, with loops for a launch."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from forebay_server.engines.cuda import picture_kernel as kernel

_LAUNCH = r"""
#include <math.h>
#define __device__
#define __global__
struct Index { int x, y, z; };
static Index blockIdx, blockDim, threadIdx;
%s
extern "C" void launch(const Picture* pictures, const Form* form, int count) {
    blockDim = {1, 1, 1};
    for (blockIdx.z = 0; blockIdx.z < count; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < form->height; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < form->width; ++blockIdx.x) forebay_pictures(pictures, *form);
}
"""


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which("g++") is not None


@functools.cache
def _library():
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.cpp").write_text(_LAUNCH % kernel.SOURCE)
    command = ["g++", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-o", "kernel.so", "kernel.cpp"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    shutil.rmtree(folder)
    return library


def launch(pictures, form) -> None:
    """Run the kernel. Both are arrays of `kernel.PICTURE` and one `kernel.FORM`, with addresses of host memory."""
    assert pictures.dtype == kernel.PICTURE
    form = np.atleast_1d(form)
    _library().launch(ctypes.c_void_p(pictures.ctypes.data), ctypes.c_void_p(form.ctypes.data), len(pictures))
