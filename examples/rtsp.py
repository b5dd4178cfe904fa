"""A network camera that may go away: one thread reads it (and opens it again), another takes the results.

    python examples/rtsp.py rtsp://user:password@camera/stream --server 127.0.0.1:8001

The reader never waits for the server, so the camera's own buffer never fills with old pictures.
"""

import argparse
import threading
from collections.abc import Iterator

import cv2
import numpy as np

import forebay


def main(arguments: list[str] | None = None) -> None:
    """Run until the camera stays away or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--tries", type=int, default=5, help="give up after this many failures in a row")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two tries")
    options = parser.parse_args(arguments)
    # A camera should never give up on its server: `give_up_after_s=None`.
    patience = forebay.Reconnection(give_up_after_s=None)
    with forebay.Client(options.server, reconnection=patience) as client:
        stream = client.stream("gate", model="detector", encoding="bgr8", budget_ms=500)
        taker = threading.Thread(target=take, args=(stream,))
        taker.start()
        try:
            for picture in pictures(options.url, options.tries, options.pause):
                stream.send(picture)
        finally:
            stream.close()
            taker.join()


def pictures(url: str, tries: int, pause_s: float) -> Iterator[np.ndarray]:
    """Yield the camera's pictures; reopen the camera when it stops."""
    waiting = threading.Event()
    failures = 0
    while failures < tries:
        camera = cv2.VideoCapture(url)
        is_there, picture = camera.read()
        failures = 0 if is_there else failures + 1
        while is_there:
            yield picture
            is_there, picture = camera.read()
        camera.release()
        print(f"the camera is away ({failures} of {tries} tries failed)")
        waiting.wait(pause_s)


def take(stream: forebay.Stream) -> None:
    """Take every result, in order; this includes frames without an answer."""
    for result in stream:
        if result.is_ok:
            people = sum(item.label == "person" for item in result.detections)
            print(f"frame {result.seq}: {people} people, {result.age_ms:.0f} ms old")
        elif not result.is_answered:
            print(f"frame {result.seq} got no answer: {result.message}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
