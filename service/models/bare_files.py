"""Model files without a folder: `best.onnx` in a repository, or named by the operator, is a model `best`.

Such a model has one version, 1. Its configuration lies beside it as `best.pbtxt`, its labels as `best.labels.txt` or
`labels.txt`. Pure, but for `siblings`.
"""

from collections.abc import Iterator
from pathlib import Path

from forebay_server.engines.backends import BACKENDS

BARE_VERSION = "1"
CONFIG_SUFFIX = ".pbtxt"
LABELS_NAME = "labels.txt"
"""Of all files beside it that have no `NAME.labels.txt` of their own."""
_USUAL = {name.removeprefix("model"): name for backend in BACKENDS.values() for name in backend.filenames}
FILE_SUFFIXES = tuple(_USUAL)
"""Of files that the operator names."""
FOLDER_SUFFIXES = tuple(suffix for suffix in FILE_SUFFIXES if suffix != ".pt")
"""Of files that are models if they lie in a repository: trainers leave their own `best.pt` beside `best.onnx`."""


def model_name(filename: str, suffixes: tuple[str, ...] = FILE_SUFFIXES) -> str | None:
    """Return the name of the model that a file would be; None if its suffix is no model's."""
    stem, dot, suffix = filename.rpartition(".")
    return stem if stem and dot + suffix in suffixes else None


def is_usual_name(usual: str, filename: str) -> bool:
    """Whether `filename` is the bare form of a usual name: `best.onnx` of `model.onnx`."""
    return _USUAL.get("." + filename.rpartition(".")[2]) == usual


def siblings(file: Path, name: str) -> Iterator[Path]:
    """Yield the files beside a bare model file that may belong to it: named after it, and `labels.txt`."""
    for path in file.parent.iterdir():
        if path != file and (path.name.startswith(f"{name}.") or path.name == LABELS_NAME):
            yield path
