"""The environment of the exporters, and the pictures that the tests send."""

import os
import subprocess
from pathlib import Path

import cv2

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-exporters"
CLIP = ROOT / "models" / "pedestrians.mp4"
CLIP_FRAME = 100
MOST_S = 3600


def packages():
    """The folder of the exporters' packages."""
    (folder,) = ENVIRONMENT.glob("lib/python*/site-packages")
    return folder


def run(script, *arguments):
    """Run a script of this folder in the exporters' environment; it fails the test with its last lines."""
    command = [ENVIRONMENT / "bin" / "python", Path(__file__).with_name(script), *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=MOST_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def exports_folder(tmp_path_factory, exporter):
    """Where an exporter writes: below FOREBAY_EXPORTS, where exports are kept for later runs, or a temporary folder."""
    kept = os.environ.get("FOREBAY_EXPORTS")
    folder = Path(kept).resolve() / exporter if kept else tmp_path_factory.mktemp(exporter)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    write_pictures(folder / "pictures")
    return folder


def pictures():
    """Name to picture, BGR: five aspect ratios, from 3:1 to 9:16."""
    clip = cv2.VideoCapture(str(CLIP))
    clip.set(cv2.CAP_PROP_POS_FRAMES, CLIP_FRAME)
    is_read, frame = clip.read()
    assert is_read
    data = packages() / "skimage" / "data"
    astronaut, coffee, cat = (cv2.imread(str(data / f"{name}.png")) for name in ("astronaut", "coffee", "chelsea"))
    return {
        "wide": cv2.resize(frame, (640, 360)),
        "tall": frame[:, 100 : 100 + frame.shape[0] * 9 // 16].copy(),
        "square": astronaut,
        "classic": coffee,
        "panorama": cv2.resize(cat[60:210], (640, 210)),
    }


def write_pictures(folder):
    """Write `pictures` as PNG files."""
    for name, picture in pictures().items():
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    return folder
