"""A node in a middleware with callbacks, such as ROS: images come in on one thread, detections go out on another.

No ROS is needed to run it: a stand-in publishes images of noise. In a real node `on_image` is the subscription's
callback and `publish` the publisher's method.

    python examples/ros_like_callback.py --server 127.0.0.1:8001
"""

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

import forebay


@dataclass(frozen=True)
class Image:
    """The fields of sensor_msgs/Image used here: time of capture (nanoseconds of the wall clock) and pixels."""

    stamp_ns: int
    bgr: np.ndarray


class DetectorNode:
    """Turns images into detections with the stamp of their image. `on_image` never blocks its caller."""

    def __init__(self, server: str, publish: Callable[[int, forebay.Result], None]) -> None:
        self._publish = publish
        # Stamps are of the wall clock, so ages must be computed on the wall clock too.
        self._client = forebay.Client(server, capture_clock_ns=time.time_ns)
        self._stream = self._client.stream("front", model="detector", encoding="bgr8", budget_ms=200)
        self._taker = threading.Thread(target=self._take, name="detections")

    def on_image(self, image: Image) -> None:
        """Send an image; if the server is slow, newer images replace waiting ones."""
        self._stream.send(image.bgr, capture_time_ns=image.stamp_ns)

    def _take(self) -> None:
        try:
            for result in self._stream:
                if result.is_ok and result.capture_time_ns is not None:
                    self._publish(result.capture_time_ns, result)
        except forebay.ForebayError as error:
            print(f"no more detections: {error}")

    def __enter__(self) -> Self:
        self._taker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._taker.join()
        self._client.close()


def main(arguments: list[str] | None = None) -> None:
    """Publish some images and print the detections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--fps", type=float, default=10.0)
    options = parser.parse_args(arguments)
    noise = np.random.default_rng(0)
    pause = threading.Event()

    def publish(stamp_ns: int, result: forebay.Result) -> None:
        print(f"image of {stamp_ns}: {len(result.detections)} objects, {result.age_ms:.0f} ms old")

    with DetectorNode(options.server, publish) as node:
        for _ in range(options.images):
            node.on_image(Image(time.time_ns(), noise.integers(0, 255, (480, 640, 3), np.uint8)))
            pause.wait(1 / options.fps)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
