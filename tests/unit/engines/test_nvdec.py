"""The binding of NVDEC over a stand-in: its records, its calls, and the meaning of their answers."""

import ctypes
import shutil

import pytest

from forebay_server.engines.cuda import nvcuvid
from forebay_server.engines.cuda.nvcuvid import bind
from forebay_server.engines.cuda.nvdec import NvDecoder
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, ExecutionError
from tests.support import fake_nvcuvid
from tests.support.fake_nvcuvid import number, set_number, unit

STREAM = 7
SIZE = (64, 32)


@pytest.fixture
def library(monkeypatch):
    path = fake_nvcuvid.build()
    if path is None:
        pytest.skip("no C compiler")
    bound = bind(str(path))
    monkeypatch.setattr(nvcuvid, "load", lambda: bound)
    yield bound
    shutil.rmtree(path.parent)


@pytest.fixture
def decoder(library):
    made = NvDecoder("h264", SIZE, 2, STREAM)
    yield made
    made.close()


def pictured(decoder, data):
    assert decoder.submit(data)
    return decoder.map_picture()


def test_a_decoder_is_made_for_pictures_as_they_are_coded(library, decoder):
    created = list((ctypes.c_ulong * 6).in_dll(library, "created"))
    assert created == [64, 32, 6, 64, 32, 1]
    assert number(library, "parsers") == 0


def test_a_picture_is_mapped_where_it_is_shown(library, decoder):
    picture = pictured(decoder, unit("S"))
    assert (picture.pitch, picture.size) == (64, (56, 28))  # 4 and 2 pixels are cut at the left and the top
    assert picture.luma_offset == 2 * 64 + 4
    assert picture.chroma_offset == (32 + 1) * 64 + 4
    assert (picture.matrix, picture.is_full_range, picture.is_damaged) == (1, True, False)
    surface = (ctypes.c_uint8 * 1).from_address(picture.address)[0]
    assert surface == number(library, "next")
    assert ctypes.c_void_p.in_dll(library, "last_stream").value == STREAM
    assert number(library, "parse_flags") == 8
    assert number(library, "display") == 0


def test_one_picture_is_mapped_at_a_time(library, decoder):
    decoder.submit(unit("S"))
    for _ in range(100):
        pictured(decoder, unit("P"))
        assert number(library, "mapped") == 1
    assert not decoder.submit(unit("N"))
    assert number(library, "mapped") == 0


def test_of_several_pictures_in_a_unit_the_last_one_counts(library, decoder):
    decoder.submit(unit("S"))
    picture = pictured(decoder, unit("2"))
    assert (ctypes.c_uint8 * 1).from_address(picture.address)[0] == number(library, "next")


@pytest.mark.parametrize(("status", "is_damaged"), [(2, False), (8, True), (9, True), (0, False)])
def test_errors_of_the_engine_are_told(library, decoder, status, is_damaged):
    decoder.submit(unit("S"))
    picture = pictured(decoder, unit("P", status=status))
    assert picture.is_damaged == is_damaged


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (unit("S", size=(128, 64)), "another kind or size"),
        (unit("S", surfaces=7), "more references"),
        (unit("X"), "cuvidParseVideoData: CUresult 1"),
    ],
)
def test_what_the_decoder_is_not_for_ends_its_unit_only(library, decoder, bad, why):
    decoder.submit(unit("S"))
    with pytest.raises(ExecutionError, match=why):
        decoder.submit(bad)
    assert decoder.submit(unit("P"))


def test_another_stream_has_a_parser_of_its_own(library, decoder):
    decoder.submit(unit("S"))
    decoder.reset()
    assert (number(library, "parsers"), number(library, "mapped"), number(library, "decoders")) == (0, 0, 1)
    assert decoder.submit(unit("S"))


def test_everything_is_given_back(library):
    decoder = NvDecoder("hevc", SIZE, 2, STREAM)
    decoder.submit(unit("S"))
    decoder.close()
    decoder.close()
    assert (number(library, "parsers"), number(library, "mapped"), number(library, "decoders")) == (0, 0, 0)


def test_no_memory_is_named(library):
    set_number(library, "create_status", 2)
    with pytest.raises(DeviceMemoryError, match="fewer streams"):
        NvDecoder("h264", SIZE, 2, STREAM)
    assert number(library, "decoders") == 0


@pytest.mark.parametrize("size", [(8192, 64), (16, 16)])
def test_sizes_that_the_engine_lacks_are_named(library, size):
    with pytest.raises(BackendUnavailableError, match="does not decode h264"):
        NvDecoder("h264", size, 2, STREAM)


def test_a_machine_without_the_library_is_named(monkeypatch):
    monkeypatch.setattr(nvcuvid, "LIBRARY", "libnvcuvid-missing.so.1")
    nvcuvid.load.cache_clear()
    with pytest.raises(BackendUnavailableError, match="libnvcuvid"):
        nvcuvid.load()
