"""Video, by CPU time, so that other work on the machine matters little.

    python -m forebay_server.bench.video [--only decode | client | overload] [--frames 120]

The bundled clip, resized to 1280x720, as JPEG of quality 85, H.264 and H.265 (crf 23, a keyframe every 30 frames,
without B-frames). `decode`: bytes of a frame, and CPU time of decoding it to the model's picture, on one core.
`client`: CPU time of `forebay stream` with a network camera. `overload`: frames in time when cameras of 1920x1080 offer
a half, one, one and a half and two times the frames that the cores decode, and the share of the server's CPU that
decoded them.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from forebay.encodings import VALUES
from forebay_server.bench.video_client import client_cost
from forebay_server.bench.video_overload import BUDGET_MS, LOADS, MEASURED_S, decoded_per_s, offer
from forebay_server.bench.video_overload import FRAMES_PER_S as OVERLOAD_FRAMES_PER_S
from forebay_server.loadtest.frames import FramesSpec, pictures
from forebay_server.loadtest.target import Encoding
from forebay_server.service.cores import usable_cores
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codec import LibavCodec
from forebay_server.service.frontend.frames.video.request import CODECS
from forebay_server.service.pictures.picture_input import PictureInput

SIZE = (1280, 720)
OVERLOAD_SIZE = (1920, 1080)
MOST_PIXELS = 50_000_000
FRAMES_PER_S = 30
CORES = 2
LEAST_SHOWN_MS = 0.01


def _jpeg(payloads: Sequence[bytes], model: PictureInput) -> Callable[[], None]:
    target = np.zeros(model.shape, np.uint8)

    def run() -> None:
        for payload in payloads:
            decode_into(target, memoryview(payload), VALUES["jpeg"], (0, 0), model, MOST_PIXELS)

    return run


def _video(payloads: Sequence[bytes], model: PictureInput, encoding: Encoding) -> Callable[[], None]:
    target = np.zeros(model.shape, np.uint8)
    name = CODECS[VALUES[encoding.value]]

    def run() -> None:
        reader, codec = UnitReader(name), LibavCodec(name, MOST_PIXELS)
        for number, payload in enumerate(payloads):
            reader.read(payload)
            for picture in codec.decode(payload, number):
                picture.place(target, model, MOST_PIXELS)

    return run


def _cpu_ms(run: Callable[[], None], frames: int) -> float:
    """Return the least CPU time of a frame in three runs."""
    times = []
    for _ in range(3):
        started = time.process_time()
        run()
        times.append((time.process_time() - started) / frames * 1e3)
    return min(times)


def _decode(limit: int) -> None:
    model = PictureInput(416, 416, "BGR")
    print(
        f"| {SIZE[0]}x{SIZE[1]} | KB a frame | CPU ms a frame | streams of {FRAMES_PER_S}/s that {CORES} cores decode |"
    )
    print("| --- | ---: | ---: | ---: |")
    for encoding in (Encoding.JPEG, Encoding.H264, Encoding.H265):
        payloads = pictures(FramesSpec(size=SIZE, quality=85), encoding).payloads[:limit]
        run = _jpeg(payloads, model) if encoding is Encoding.JPEG else _video(payloads, model, encoding)
        cost_ms = _cpu_ms(run, len(payloads))
        size_kb = sum(map(len, payloads)) / len(payloads) / 1e3
        print(f"| {encoding} | {size_kb:.1f} | {cost_ms:.2f} | {CORES * 1e3 / cost_ms / FRAMES_PER_S:.0f} |")


def _client(frames: int) -> None:
    units = pictures(FramesSpec(size=SIZE), Encoding.H264).payloads
    print("| `forebay stream rtsp://` | output | CPU ms a frame | of a core | all threads, ms |")
    print("| --- | --- | ---: | ---: | --- |")
    for transcode, is_shown in (("never", False), ("never", True), ("always", False)):
        cost = client_cost(units, frames, transcode, is_shown=is_shown)
        way = "pixels" if transcode == "always" else "packets"
        threads = ", ".join(f"{name} {ms:.2f}" for name, ms in cost.by_thread.items() if ms >= LEAST_SHOWN_MS)
        output = "live view" if is_shown else "JSON lines"
        print(f"| {way} | {output} | {cost.cpu_ms:.2f} | {cost.share:.1%} | {threads} ({cost.words}) |")


def _overload(limit: int) -> None:
    units = pictures(FramesSpec(size=OVERLOAD_SIZE), Encoding.H264).payloads
    model, cores = PictureInput(416, 416, "BGR"), usable_cores()
    capacity = decoded_per_s(lambda: _video(units[:limit], model, Encoding.H264), len(units[:limit]), cores)
    cameras = [max(1, round(load * capacity / OVERLOAD_FRAMES_PER_S)) for load in LOADS]
    cost_ms = _cpu_ms(_video(units[:limit], model, Encoding.H264), len(units[:limit]))
    size = f"{OVERLOAD_SIZE[0]}x{OVERLOAD_SIZE[1]}"
    print(f"{cores} cores decode {capacity:.0f} frames/s of {size}; one takes {cost_ms:.1f} ms of CPU")
    print(f"| load | cameras | offered/s | in {BUDGET_MS:.0f} ms, 1/s | its cores | for these | other answers |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for load, found in zip(LOADS, offer(units, cameras), strict=True):
        offered = found.cameras * OVERLOAD_FRAMES_PER_S
        in_time = found.in_time / MEASURED_S
        useful = in_time * cost_ms / 1e3 / found.server_cores
        cells = (load, found.cameras, offered, f"{in_time:.0f}", f"{found.server_cores:.2f}", f"{useful:.0%}")
        print(f"| {' | '.join(map(str, cells))} | {found.words()} |", flush=True)


PARTS: dict[str, Callable[[int], None]] = {"decode": _decode, "client": _client, "overload": _overload}


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.video", description=__doc__)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--frames", type=int, default=120)
    arguments = parser.parse_args()
    for name, part in PARTS.items():
        if arguments.only in {None, name}:
            part(arguments.frames)


if __name__ == "__main__":
    main()
