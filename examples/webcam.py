"""A webcam, one thread: send the newest picture, print the detections of the answered ones.

python examples/webcam.py --device 0 --server 127.0.0.1:8001
"""

import argparse
import sys

import cv2

import forebay


def main(arguments: list[str] | None = None) -> None:
    """Run until the camera ends or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="0", help="number of the camera, or a video file")
    parser.add_argument("--server", default="127.0.0.1:8001")
    options = parser.parse_args(arguments)
    camera = cv2.VideoCapture(int(options.device) if options.device.isdigit() else options.device)
    if not camera.isOpened():
        sys.exit(f"{options.device} cannot be opened")
    try:
        # BGR8 is OpenCV's format. LATEST is the default: `send` never waits, and new pictures replace old ones.
        with forebay.Client(options.server) as client:
            stream = client.stream("webcam", model="detector", encoding="bgr8")
            while True:
                is_there, picture = camera.read()
                if not is_there:
                    break
                stream.send(picture)
                while (result := stream.receive(timeout_s=0)) is not None:
                    show(result)
            stream.close()
            for result in stream:
                show(result)
    finally:
        camera.release()


def show(result: forebay.Result) -> None:
    """Print one line for a frame of any status."""
    if result.is_ok:
        found = ", ".join(f"{item.label} {item.score:.2f}" for item in result.detections) or "nothing"
        print(f"frame {result.seq}: {found} ({result.age_ms:.0f} ms old)")
    else:
        print(f"frame {result.seq}: {result.status.value}: {result.message}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
