"""The binding of nvJPEG over a stand-in: its calls, and the meaning of their answers."""

import ctypes
import shutil

import numpy as np
import pytest

from forebay_server.engines.cuda import nvjpeg
from forebay_server.engines.cuda.nvjpeg import FileToDecode, NvJpegDecoder, bind
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, ExecutionError
from tests.support import fake_nvjpeg
from tests.support.fake_nvjpeg import number, set_number

STREAM = 7
REFUSED_KIND, FAILING = 1, 2


@pytest.fixture
def library(monkeypatch):
    path = fake_nvjpeg.build()
    if path is None:
        pytest.skip("no C compiler")
    bound = bind(str(path))
    monkeypatch.setattr(nvjpeg, "load", lambda: bound)
    yield bound
    shutil.rmtree(path.parent)


def file_of(last, kind=0):
    return np.array([0xFF, 0xD8, kind, 9, last], np.uint8)


def to_decode(file, pixels, pitch=30):
    return FileToDecode(file.ctypes.data, len(file), pixels.ctypes.data, pitch)


def test_memory_for_the_largest_round_is_taken_at_start_and_given_back(library):
    decoder = NvJpegDecoder(2, 16, 1920 * 1088)
    assert number(library, "backend") == 3
    assert number(library, "flags") == 32
    count, width, height, chroma, form = (ctypes.c_int * 5).in_dll(library, "preallocated")
    assert (count, chroma, form) == (16, 0, 5)
    assert width * height >= 1920 * 1088
    assert width % 16 == height % 16 == 0
    assert number(library, "states") == 2
    decoder.close()
    decoder.close()
    assert number(library, "states") == 0
    assert number(library, "created") == number(library, "destroyed") == 1


def test_a_batch_goes_where_it_should(library):
    decoder = NvJpegDecoder(1, 8, 100)
    files = [file_of(last) for last in (11, 12, 13)]
    pixels = [np.zeros(3, np.uint8) for _ in files]
    decoder.decode(0, [to_decode(file, target) for file, target in zip(files, pixels, strict=True)], STREAM)
    assert [int(target[0]) for target in pixels] == [11, 12, 13]
    assert ctypes.c_size_t.in_dll(library, "last_pitch").value == 30
    decoder.close()


@pytest.mark.parametrize(("file", "is_accepted"), [(file_of(1), True), (file_of(1, REFUSED_KIND), False)])
def test_files_that_the_hardware_does_not_decode_are_not_accepted(library, file, is_accepted):
    decoder = NvJpegDecoder(1, 8, 100)
    assert decoder.accepts(file.ctypes.data, len(file)) == is_accepted
    junk = np.zeros(10, np.uint8)
    assert not decoder.accepts(junk.ctypes.data, len(junk))
    decoder.close()


def test_a_file_that_fails_its_batch_is_an_error_of_execution(library):
    decoder = NvJpegDecoder(1, 8, 100)
    good, bad, target = file_of(5), file_of(6, FAILING), np.zeros(3, np.uint8)
    with pytest.raises(ExecutionError, match="bad JPEG"):
        decoder.decode(0, [to_decode(good, target), to_decode(bad, target)], STREAM)
    decoder.decode(0, [to_decode(good, target)], STREAM)
    assert target[0] == 5
    decoder.close()


def test_a_gpu_without_engines_is_named(library):
    set_number(library, "create_status", 7)
    with pytest.raises(BackendUnavailableError, match="no JPEG engine"):
        NvJpegDecoder(1, 8, 100)
    assert number(library, "destroyed") == 0


def test_a_lack_of_memory_is_no_lack_of_engines(library):
    set_number(library, "create_status", 5)
    with pytest.raises(DeviceMemoryError, match="no memory"):
        NvJpegDecoder(0, 0, 0)
    assert number(library, "destroyed") == 0
    set_number(library, "create_status", 0)
    NvJpegDecoder(0, 0, 0).close()


def test_too_little_memory_leaves_nothing_behind(library):
    set_number(library, "memory_status", 5)
    with pytest.raises(DeviceMemoryError, match="gpu_decode_pixels"):
        NvJpegDecoder(2, 16, 1920 * 1088)
    assert number(library, "states") == 0
    assert number(library, "created") == number(library, "destroyed") == 1
