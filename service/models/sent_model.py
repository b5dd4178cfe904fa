"""A model whose files come with the load request, Triton's `file:` parameters.

The files are in a folder of the server's own, mode 0700, while the model is loaded, and are removed before the load is
answered: ONNX Runtime has read or mapped them by then. The next load without files takes the repository's again.

Only ONNX files are accepted. TensorRT plans and TorchScript can contain code: the server trusts the operator's code,
not a client's.

Thread: that of the load.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.backends import BACKENDS
from forebay_server.service.models.config import describe
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.repository import (
    MAX_SHOWN,
    MODEL_NAME,
    ModelEntry,
    Repository,
    RepositoryError,
    check_part,
)

MOST_PARTS = (
    # parts of a path: version, a folder called model.onnx, one for its weights; removing needs a file handle for each
    8
)


@contextmanager
def unpacked(name: str, files: Mapping[str, bytes], config: ModelConfig | None) -> Iterator[ModelEntry]:
    """Yield the folder of a sent model, for the duration of the block.

    Args:
        name: of the model; one of the repository may have it too.
        files: content by path below the model's folder, such as `1/model.onnx`.
        config: sent with the files.

    Raises:
        RepositoryError: an invalid name or path, no configuration, or files that are not ONNX.
    """
    if config is None:
        raise ConfigError("failed to poll from model repository: with files, send the parameter 'config' too")
    if not MODEL_NAME.fullmatch(name):
        raise RepositoryError(f"{name[:MAX_SHOWN]!r} cannot be a model's name")
    try:
        temporary = TemporaryDirectory(prefix="forebay-")
    except OSError as error:
        raise RepositoryError(f"{name}: the server has no place for its files: {error.strerror}") from error
    with temporary as folder:
        root = Path(folder).resolve()
        for path, content in files.items():
            _write(root / name, path, content)
        entry = Repository([root]).model(name)
        backend = describe(entry, config).backend
        if not BACKENDS[backend].is_sendable:
            raise RepositoryError(f"{name}: files of backend {backend!r} may hold code: put them into the repository")
        yield entry


def _write(folder: Path, path: str, content: bytes) -> None:
    parts = path.split("/")
    if len(parts) > MOST_PARTS:
        raise RepositoryError(
            f"{folder.name}: {path[:MAX_SHOWN]!r} has more than {MOST_PARTS} parts: use fewer folders"
        )
    for part in parts:
        check_part(folder.name, part)
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise RepositoryError(f"{folder.name}: {path[:MAX_SHOWN]!r} cannot be written: {error.strerror}") from error
