"""One picture, and a line about each object: box, keypoints, angle and outline, as far as the model finds them.

    python examples/picture.py street.jpg --model detector --server 127.0.0.1:8001

`infer` opens a stream for its one picture. For more than a few pictures, see folder.py.
"""

import argparse
import sys

import forebay


def describe(found: forebay.Detection, keypoint_count: int) -> str:
    """Return one line about an object."""
    box = found.box_pixels
    words = [f"{found.label} {found.score:.2f} at ({box.x_min:.0f}, {box.y_min:.0f}, {box.x_max:.0f}, {box.y_max:.0f})"]
    if keypoint_count:
        words.append(f"{keypoint_count} keypoints")
    if found.rotated_box is not None:
        words.append(f"turned by {found.rotated_box.angle_radians:.2f} rad")
    if found.mask is not None:
        words.append(f"outline of {sum(len(points) for points in found.mask.polygons)} points")
    return ", ".join(words)


def main(arguments: list[str] | None = None) -> None:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", help="a JPEG or PNG file")
    parser.add_argument("--model", default="detector")
    parser.add_argument("--server", default="127.0.0.1:8001")
    options = parser.parse_args(arguments)
    with forebay.Client(options.server) as client:
        try:
            result = client.infer(options.picture, model=options.model, masks="polygons")
        except (OSError, forebay.ForebayError) as error:  # no such file; no such model, no server
            sys.exit(str(error))
    print(f"{result.status.value}: {result.message}" if result.message else result.status.value)
    for found in result.detections:
        print(describe(found, sum(point.score >= 0.5 for point in found.keypoints)))


if __name__ == "__main__":
    main()
