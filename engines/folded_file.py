"""A model file with changes to its graph, as bytes: made anew, or kept in a cache between runs.

A kept file is named by the SHA-256 of the model's file and the changes, and begins with the SHA-256 of its own content,
so that a changed model, another change and a torn file are all the same as no file. Weights in other files stay there.

Thread: any, and any number of processes: a file appears whole or not at all.
"""

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from google.protobuf.message import EncodeError

from forebay_server.engines.fold import Fold, fold_into
from forebay_server.engines.onnx_graph import GraphError
from forebay_server.engines.onnx_head import MAX_FILE_BYTES, read_model
from forebay_server.engines.output_rows import fix_rows

FORMAT = 3  # to be raised when the same fold adds other nodes
DIGEST_BYTES = hashlib.sha256().digest_size


def folded_file(path: Path, fold: Fold | None, cache_folder: Path | None, rows: int | None = None) -> bytes:
    """Return the content of a model file with `fold` and `rows`. Blocks: 5 ms a megabyte where nothing is kept.

    Args:
        path: of an ONNX file.
        fold: nodes in front of the picture.
        cache_folder: keeps the result; one that cannot be written keeps nothing; None keeps nothing.
        rows: of outputs that leave their number open.

    Raises:
        FoldError: `fold` does not fit the model, which can be served without it.
        RowsError: `rows` do not fit the model.
        GraphError: the file is too large, or its branches are nested too deeply.
        ModelFileError: no ONNX file.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise GraphError("the file has 2 GB or more: save the model with its weights as external data")
    kept = None if cache_folder is None else cache_folder / "folds" / f"{_name(path, fold, rows)}.onnx"
    if kept is not None and (content := _read(kept)) is not None:
        return content
    model = read_model(path)
    if fold is not None:
        fold_into(model, fold)
    if rows is not None:
        fix_rows(model, rows)
    try:
        content = bytes(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise GraphError("the file has almost 2 GB: save the model with its weights as external data") from error
    if kept is not None and kept.stem == _name(path, fold, rows):  # not replaced between the two readings
        _keep(kept, content)
    return content


def _name(path: Path, fold: Fold | None, rows: int | None) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{FORMAT} {fold!r} {rows}".encode())
    return digest.hexdigest()


def _read(kept: Path) -> bytes | None:
    """The content of a kept file; None if there is none, or it is not as it was written."""
    try:
        if not kept.is_file() or kept.stat().st_size > MAX_FILE_BYTES + DIGEST_BYTES:
            return None
        data = kept.read_bytes()
    except OSError:
        return None
    content = data[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == data[:DIGEST_BYTES] else None


def _keep(kept: Path, content: bytes) -> None:
    """Write a file, whole or not at all. The server warns about an unwritable folder when it keeps measured costs."""
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        temporary.replace(kept)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
