"""The contract of writers of pictures (engines/pictures.py), run against every device that has them."""

import numpy as np
import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.errors import BackendUnavailableError, MisuseError
from forebay_server.engines.pictures import PictureLimits
from forebay_server.service.pictures.on_device import form_of, row_of
from tests.support.device_pictures import (
    FORMS,
    SIMULATED_FILES,
    differences,
    pixels_of,
    put_file,
    put_planes,
    row_of_file,
    row_of_planes,
)
from tests.support.jpegs import ARITHMETIC, BASELINE, HEIGHT, OTHER_KINDS, PROGRESSIVE, WIDTH, encoded
from tests.support.rig import rig_of

DEVICE_KINDS = ["simulated", pytest.param("cuda", marks=pytest.mark.gpu)]
ROWS = 4
FILE_PIXELS = 640 * 480


def device_or_skip(kind):
    if kind == "simulated":
        return SimulatedDevice(clock=MonotonicClock(), files=SIMULATED_FILES)
    try:
        return open_device(kind, clock=MonotonicClock())
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=DEVICE_KINDS)
def rig(request):
    with rig_of(device_or_skip(request.param)) as rig:
        if not rig.device.picture_support().planes:
            pytest.skip(rig.device.picture_support().reason)
        yield rig


@pytest.fixture
def needs_files(rig):
    if not rig.device.picture_support().files:
        pytest.skip(rig.device.picture_support().reason)


class Target:
    """One writer with the model's input of one slot."""

    def __init__(self, rig, picture, file_pixels=FILE_PIXELS, slots=2):
        self.rig, self.picture = rig, picture
        self.stream = rig.stream("pictures")
        self.buffer = rig.on_device(ROWS * picture.nbytes)
        self.host = rig.host(ROWS * picture.nbytes)
        limits = PictureLimits(ROWS, slots, file_pixels)
        self.writer = rig.keep(rig.device.open_pictures(form_of(picture), limits, self.stream))

    def write(self, sources, slot=0):
        """Write sources by row; the rows of those that are refused."""
        rows = [row_of(self.picture, source, row) for row, source in sources.items()]
        return [each.row for each in self.writer.write(rows, self.buffer, slot)]

    def rows(self):
        """All rows, once they are written."""
        self.stream.copy_d2h(self.host, self.buffer, self.host.nbytes)
        self.stream.sync()
        view = self.host.read_view().view(self.picture.dtype)
        return view.reshape(ROWS, *self.picture.shape).copy()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.usefixtures("needs_files")
def test_files_become_the_rows_that_the_cpu_makes(rig, name):
    picture = FORMS[name]
    target = Target(rig, picture)
    files = {row: encoded(pixels_of(160 + 32 * row, 120, row)) for row in (0, 2, 3)}
    sources = {row: put_file(rig, file, (160 + 32 * row, 120), offset=64 * row) for row, file in files.items()}
    assert target.write(sources) == []
    found = target.rows()
    for row, file in files.items():
        mean, _ = differences(found[row], row_of_file(file, picture), picture)
        assert mean < 2.0
    assert not found[1].any()  # a row without a picture is not touched


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "grey", "restart intervals"])
@pytest.mark.usefixtures("needs_files")
def test_kinds_of_files_that_cameras_send_are_decoded(rig, kind):
    picture, file = FORMS["stretched bytes"], OTHER_KINDS[kind]
    target = Target(rig, picture)
    assert target.write({0: put_file(rig, file, (WIDTH, HEIGHT))}) == []
    mean, _ = differences(target.rows()[0], row_of_file(file, picture), picture)
    assert mean < 2.0


@pytest.mark.usefixtures("needs_files")
def test_a_refused_file_leaves_the_others_whole(rig):
    picture = FORMS["stretched bytes"]
    target = Target(rig, picture)
    junk = bytes(1000)
    sources = {
        0: put_file(rig, BASELINE, (WIDTH, HEIGHT)),
        1: put_file(rig, junk, (WIDTH, HEIGHT)),
        3: put_file(rig, BASELINE, (WIDTH, HEIGHT)),
    }
    assert target.write(sources) == [1]
    found = target.rows()
    for row in (0, 3):
        mean, _ = differences(found[row], row_of_file(BASELINE, picture), picture)
        assert mean < 2.0


@pytest.mark.usefixtures("needs_files")
def test_a_call_of_refused_files_alone_is_no_error(rig):
    target = Target(rig, FORMS["stretched bytes"])
    assert target.write({1: put_file(rig, b"\xff\xd8\xff\xd9", (8, 8))}) == [1]


@pytest.mark.usefixtures("needs_files")
def test_a_file_that_is_larger_than_the_limit_is_refused(rig):
    target = Target(rig, FORMS["stretched bytes"], file_pixels=WIDTH * HEIGHT - 1)
    assert target.write({0: put_file(rig, BASELINE, (WIDTH, HEIGHT))}) == [0]


@pytest.mark.parametrize("file", [PROGRESSIVE, ARITHMETIC], ids=["progressive", "arithmetic"])
@pytest.mark.usefixtures("needs_files")
def test_other_codings_are_refused_or_right(rig, file):
    picture = FORMS["stretched bytes"]
    target = Target(rig, picture)
    size = (32, 24) if file is ARITHMETIC else (WIDTH, HEIGHT)
    if target.write({0: put_file(rig, file, size)}) == []:
        mean, _ = differences(target.rows()[0], row_of_file(file, picture), picture)
        assert mean < 2.0


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("matrix", "shares"), [(6, (0.299, 0.114)), (1, (0.2126, 0.0722))])
@pytest.mark.parametrize("is_full_range", [False, True])
def test_planes_become_the_rows_that_the_cpu_makes(rig, name, matrix, shares, is_full_range):
    picture = FORMS[name]
    target = Target(rig, picture, file_pixels=0)
    upload, ready = rig.stream("decoder"), rig.event()
    size = (161, 121)
    planes, luma, chroma = put_planes(rig, upload, size, shares=shares, is_full_range=is_full_range, ready=ready)
    target.write({2: planes})
    expected = row_of_planes(luma, chroma, size, picture, matrix=matrix, is_full_range=is_full_range)
    mean, _ = differences(target.rows()[2], expected, picture)
    assert mean < 2.0
    upload.sync()


@pytest.mark.usefixtures("needs_files")
def test_one_call_takes_files_and_planes(rig):
    picture = FORMS["letterbox of a detector"]
    target = Target(rig, picture)
    planes, luma, chroma = put_planes(rig, target.stream, (128, 96))
    target.write({0: planes, 1: put_file(rig, BASELINE, (WIDTH, HEIGHT))})
    found = target.rows()
    expected = row_of_planes(luma, chroma, (128, 96), picture, matrix=1, is_full_range=False)
    assert differences(found[0], expected, picture)[0] < 2.0
    assert differences(found[1], row_of_file(BASELINE, picture), picture)[0] < 2.0


@pytest.mark.usefixtures("needs_files")
def test_slots_take_turns(rig):
    picture = FORMS["stretched bytes"]
    target = Target(rig, picture)
    for turn in range(6):
        file = encoded(pixels_of(200, 150, turn))
        source = put_file(rig, file, (200, 150))
        assert target.write({turn % ROWS: source}, slot=turn % 2) == []
        mean, _ = differences(target.rows()[turn % ROWS], row_of_file(file, picture), picture)
        assert mean < 2.0


def test_a_writer_of_planes_alone_refuses_files(rig):
    target = Target(rig, FORMS["stretched bytes"], file_pixels=0)
    assert target.write({0: put_file(rig, BASELINE, (WIDTH, HEIGHT))}) == [0]


def test_the_cpu_writes_no_pictures():
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        support = rig.device.picture_support()
        assert not support.planes
        assert not support.files
        with pytest.raises(MisuseError):
            rig.device.open_pictures(form_of(FORMS["grey"]), PictureLimits(1, 1, 0), rig.stream())


def test_no_memory_is_left_behind(rig):
    target = Target(rig, FORMS["grey"], file_pixels=0)
    target.writer.close()
    target.writer.close()
    assert np.asarray(target.rows()).any() in {False, np.False_}
