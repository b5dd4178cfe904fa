"""Pictures on a real GPU: as the CPU makes them, with broken files as with whole ones, and nothing allocated later."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from forebay_server.engines.pictures import PictureLimits
from forebay_server.service.pictures.on_device import form_of, row_of
from forebay_server.service.pictures.picture_input import PictureInput
from tests.support.device_pictures import differences, pixels_of, put_file, put_planes, row_of_file, row_of_planes
from tests.support.jpegs import BASELINE, HEIGHT, OTHER_KINDS, WIDTH

cv2 = pytest.importorskip("cv2")
MODELS = Path(__file__).resolve().parents[2] / "models"
DETECTOR = PictureInput(416, 416, "BGR")  # as models/detector/config.pbtxt
ROWS = 32
MUTATIONS = 1000


class Writer:
    """A writer with the model's input of each slot."""

    def __init__(self, rig, picture, rows=ROWS, file_pixels=1920 * 1088, slots=2):
        support = rig.device.picture_support()
        if not support.files:
            pytest.skip(support.reason)
        self.rig, self.picture = rig, picture
        self.stream = rig.stream("pictures")
        self.target = rig.on_device(rows * picture.nbytes)
        self.host = rig.host(rows * picture.nbytes)
        self.writer = rig.keep(
            rig.device.open_pictures(form_of(picture), PictureLimits(rows, slots, file_pixels), self.stream)
        )

    def enqueue(self, sources, slot=0):
        """Write sources, in the order of rows; the rows of those that are refused."""
        rows = [row_of(self.picture, source, row) for row, source in enumerate(sources)]
        return [each.row for each in self.writer.write(rows, self.target, slot)]

    def rows(self, count):
        """The first rows, once they are written."""
        self.stream.copy_d2h(self.host, self.target, count * self.picture.nbytes)
        self.stream.sync()
        view = self.host.read_view()[: count * self.picture.nbytes].view(self.picture.dtype)
        return view.reshape(count, *self.picture.shape).copy()


def frames_of_clip(count):
    clip = cv2.VideoCapture(str(MODELS / "pedestrians.mp4"))
    frames = [clip.read()[1] for _ in range(count)]
    clip.release()
    return frames


def test_a_batch_of_camera_frames_is_that_of_the_cpu(rig, measured):
    frames = [cv2.resize(frame, (640, 480)) for frame in frames_of_clip(ROWS)]
    files = [simplejpeg.encode_jpeg(frame, 85, "BGR", "420") for frame in frames]
    writer = Writer(rig, DETECTOR)
    assert writer.enqueue([put_file(rig, file, (640, 480)) for file in files]) == []
    found = writer.rows(ROWS)
    results = [differences(row, row_of_file(file, DETECTOR), DETECTOR) for row, file in zip(found, files, strict=True)]
    measured(f"mean difference {max(mean for mean, _ in results):.4f}, largest {max(most for _, most in results):.0f}")
    assert max(mean for mean, _ in results) < 2.0


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_every_kind_of_file_is_right_or_refused(rig, kind, measured):
    file = OTHER_KINDS[kind]
    size = (32, 24) if kind in {"arithmetic", "a scan for each component"} else (WIDTH, HEIGHT)
    writer = Writer(rig, PictureInput(48, 32, "RGB"))
    refused = writer.enqueue([put_file(rig, file, size)])
    if refused:
        measured("refused")
        return
    mean, most = differences(writer.rows(1)[0], row_of_file(file, writer.picture), writer.picture)
    measured(f"mean difference {mean:.3f}, largest {most:.0f}")
    assert mean < 2.0


def test_the_bundled_detector_finds_the_same_objects(rig, measured):
    onnxruntime = pytest.importorskip("onnxruntime")
    (path,) = (MODELS / "detector" / "1").glob("*.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    files = [
        simplejpeg.encode_jpeg(cv2.resize(frame, (640, 480)), 85, "BGR", "420") for frame in frames_of_clip(40)[::10]
    ]
    writer = Writer(rig, DETECTOR)
    assert writer.enqueue([put_file(rig, file, (640, 480)) for file in files]) == []
    least, count = 1.0, 0
    for row, file in zip(writer.rows(len(files)), files, strict=True):
        by_gpu, by_cpu = (objects_of(session, each) for each in (row, row_of_file(file, DETECTOR)))
        assert [kind for kind, _ in by_gpu] == [kind for kind, _ in by_cpu]
        for (_, box), (_, other) in zip(by_gpu, by_cpu, strict=True):
            least, count = min(least, overlap_of(box, other)), count + 1
    measured(f"{count} objects, least IoU {least:.4f}")
    assert count > 0
    assert least >= 0.97


def objects_of(session, row):
    """(class, box) of the detections of one picture, best first."""
    boxes, scores, classes = session.run(["boxes", "scores", "class_ids"], {"image": row[None]})
    kept = np.flatnonzero(scores[0] > 0.4)
    sides = [[x, y, right - x, bottom - y] for x, y, right, bottom in boxes[0][kept].tolist()]
    chosen = cv2.dnn.NMSBoxesBatched(sides, scores[0][kept].tolist(), classes[0][kept].tolist(), 0.4, 0.5)
    return [(int(classes[0][kept[each]]), boxes[0][kept[each]].tolist()) for each in np.ravel(chosen)]


def overlap_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def mutated(file, random):
    """A file with some bytes changed, inserted, removed, or with its end missing."""
    data = bytearray(file)
    for _ in range(int(random.integers(1, 9))):
        at = int(random.integers(2, len(data)))
        match int(random.integers(0, 4)):
            case 0:
                data[at] = int(random.integers(0, 256))
            case 1:
                data[at:at] = random.integers(0, 256, int(random.integers(1, 40)), np.uint8).tobytes()
            case 2:
                del data[at : at + int(random.integers(1, 40))]
            case _:
                data[at : at + 2] = bytes((0xFF, int(random.integers(0xC0, 0xFF))))
        if len(data) < 100:
            return bytes(data)
    return bytes(data[: int(random.integers(50, len(data)))] if random.integers(0, 8) == 0 else data)


def test_a_thousand_mutations_harm_nothing_else(rig, measured):
    """The files go to the device unchecked: the host's check before would keep most of them away."""
    random = np.random.default_rng(2)
    picture = PictureInput(48, 32, "RGB")
    writer = Writer(rig, picture, rows=8)
    bases = [BASELINE, *(OTHER_KINDS[kind] for kind in ("4:4:4", "4:2:2", "grey", "restart intervals", "progressive"))]
    expected, refused = row_of_file(BASELINE, picture), 0
    good = put_file(rig, BASELINE, (WIDTH, HEIGHT))
    room = rig.host(7 * 64 * 1024)
    for turn in range(MUTATIONS // 7 + 1):
        sources = []
        view = room.write_view()
        for number in range(7):
            file = mutated(bases[int(random.integers(0, len(bases)))], random)[: 64 * 1024]
            start = number * 64 * 1024
            view[start : start + len(file)] = np.frombuffer(file, np.uint8)
            sources.append(type(good)(room, start, len(file), (WIDTH, HEIGHT)))
        position = turn % 8
        sources.insert(position, good)
        found = writer.enqueue(sources, slot=turn % 2)
        assert position not in found
        refused += len(found)
        row = writer.rows(8)[position]
        assert differences(row, expected, picture)[0] < 2.0
    rig.device.raise_if_lost()
    measured(f"{7 * (MUTATIONS // 7 + 1)} mutations, {refused} refused, the good one right in every batch")


def test_planes_are_converted_as_the_cpu_does(rig, measured):
    writer = Writer(rig, PictureInput(416, 416, "BGR", "letterbox"), rows=4, file_pixels=640 * 480)
    planes, luma, chroma = put_planes(rig, writer.stream, (1280, 720))
    writer.enqueue([planes])
    expected = row_of_planes(luma, chroma, (1280, 720), writer.picture, matrix=1, is_full_range=False)
    mean, most = differences(writer.rows(1)[0], expected, writer.picture)
    measured(f"mean difference {mean:.4f}, largest {most:.0f}")
    assert mean < 2.0


def test_nothing_is_allocated_after_the_start(rig, measured):
    sizes = [(640, 480), (1280, 720), (1920, 1080), (320, 240), (1000, 1000)]
    writer = Writer(rig, DETECTOR)
    files = {size: simplejpeg.encode_jpeg(pixels_of(*size), 85, "BGR", "444") for size in sizes}
    sources = {size: put_file(rig, file, size) for size, file in files.items()}
    writer.enqueue([sources[1920, 1080]] * ROWS)  # all lazy work: kernels of the library
    writer.stream.sync()
    before = rig.device.free_bytes()
    for turn in range(60):
        size = sizes[turn % len(sizes)]
        assert writer.enqueue([sources[size]] * (1 + turn % ROWS), slot=turn % 2) == []
        writer.stream.sync()
    grown = before - rig.device.free_bytes()
    measured(f"device memory {grown / 2**20:+.0f} MiB over 60 batches of 5 sizes")
    assert grown <= 0
