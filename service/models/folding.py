"""Settles how a model's graph is changed before the model is opened.

The normalisation of pictures goes into the graph (`engines.fold`), which changes the input that clients of tensors see.
Hence it is left to the worker, under `fold: auto`, if the configuration describes the input. `image_size` fixes a
height and a width that the file leaves open, `output_rows` the rows of outputs (`engines.output_rows`). All concern
ONNX Runtime alone.

Pure but for reading the model's file.
"""

from dataclasses import replace
from pathlib import Path

import structlog

from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.fold import Fold
from forebay_server.engines.folded_file import folded_file
from forebay_server.engines.onnx_graph import GraphError
from forebay_server.engines.onnx_head import OnnxHead, read_head
from forebay_server.engines.onnx_specs import NodeInfo, derive_specs
from forebay_server.engines.output_rows import RowsError
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.derive.derived import with_derived
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.parameters import OwnParameters, read_parameters
from forebay_server.service.models.picture_completion import picture_of
from forebay_server.service.models.picture_parameters import PictureParameters
from forebay_server.service.pictures.picture_input import PictureInput

log = structlog.get_logger(__name__)

CHANNELS = frozenset({1, 3})


def settle_changes(
    description: ModelDescription, model_path: Path | None, cache_folder: Path | None
) -> tuple[ModelDescription, ModelChanges]:
    """Return the description, which says whether the model is folded, and the changes to open the model with.

    Args:
        description: from the configuration.
        model_path: of the version; None for a backend without a file.
        cache_folder: keeps folded files; None keeps nothing.

    Raises:
        ConfigError: the parameters do not fit the model.
        ModelFileError: the file is not an ONNX file.
    """
    filename = description.config_name
    own = read_parameters(description.config, filename)
    if description.backend != "onnxruntime" or model_path is None:
        _refuse_changes(description, own)
        # A plan was folded when it was built.
        return replace(description, is_folded=own.picture.fold == "on"), ModelChanges()
    head = _head(model_path)
    if head is None:
        return description, ModelChanges()
    description = with_derived(description, head.inputs, head.metadata)
    given = read_parameters(description.config, filename).picture
    dimensions: dict[str, int] = {}
    fold: Fold | None = None
    if given.scale is not None or given.image_size is not None:  # UINT8 of a fixed size needs no change
        dimensions = _open_dimensions(head, given, filename)
        picture = _picture(head, dimensions, description, given, filename)
        if picture is not None and picture.values.dtype != "uint8" and _is_wanted(description, own.picture):
            fold = _fold(picture, head)
    fold, content = _content(model_path, fold, description, own, cache_folder)
    return replace(description, is_folded=fold is not None), ModelChanges(content, dimensions)


def _refuse_changes(description: ModelDescription, own: OwnParameters) -> None:
    written = {"fold is on": own.picture.fold == "on" and description.backend != "tensorrt"}
    written["output_rows is written"] = own.output_rows is not None
    for words in (words for words, is_written in written.items() if is_written):
        raise ConfigError(
            f"{description.config_name}: {words}, but backend {description.backend!r} runs models as they are: leave "
            "it out"
        )


def _content(
    path: Path, fold: Fold | None, description: ModelDescription, own: OwnParameters, cache_folder: Path | None
) -> tuple[Fold | None, bytes | None]:
    """Return the fold that fits the model, and the content with it and with fixed rows; None if nothing changes."""
    if fold is None and own.output_rows is None:
        return None, None
    try:
        return fold, folded_file(path, fold, cache_folder, own.output_rows)
    except RowsError as error:
        raise ConfigError(f"{description.config_name}: output_rows is written, but {error}") from error
    except GraphError as error:
        if fold is None or own.picture.fold == "on":
            what = "output_rows is written" if fold is None else "fold is on"
            raise ConfigError(f"{description.config_name}: {what}, but {error}") from error
        log.warning("model is not folded, and costs more memory", model=description.name, detail=str(error))
    return _content(path, None, description, own, cache_folder)


def write_folded(model_path: Path, description: ModelDescription) -> Path | None:
    """Write a model with its fold beside its file, for a plan to be built from; None unless `fold` is on. Blocks.

    Raises:
        ConfigError: the parameters do not fit the model, or it cannot be folded.
        ModelFileError: the file is not an ONNX file.
        OSError: the file cannot be written.
    """
    filename = description.config_name
    given = read_parameters(description.config, filename).picture
    if given.fold != "on":
        return None
    head = read_head(model_path)
    description = with_derived(description, head.inputs, head.metadata)
    given = read_parameters(description.config, filename).picture
    picture = _picture(head, {}, description, given, filename)
    if picture is None or picture.values.dtype == "uint8":
        return None
    try:
        content = folded_file(model_path, replace(_fold(picture, head), is_cast_first=True), None)
    except GraphError as error:
        raise ConfigError(f"{filename}: fold is on, but {error}") from error
    written = model_path.with_suffix(".folded.onnx")
    written.write_bytes(content)
    return written


def _head(path: Path) -> OnnxHead | None:
    """Return the declarations of a file; None where ONNX Runtime has to say what is wrong with it."""
    try:
        return read_head(path)
    except ModelFileError:
        return None


def _is_wanted(description: ModelDescription, written: PictureParameters) -> bool:
    """Whether normalisation goes into the graph.

    A model in a folder without a picture parameter may have clients of its tensors, as it had under Triton.
    """
    if written.fold in {"on", "off"}:
        return written.fold == "on"
    return not description.config.input and (description.is_bare or bool(written.written))


def _fold(picture: PictureInput, head: OnnxHead) -> Fold:
    values, name = picture.values, head.inputs[picture.input_index].name
    return Fold(name, values.layout, picture.channels, values.mean, values.std, values.scale)


def _picture(
    head: OnnxHead,
    dimensions: dict[str, int],
    description: ModelDescription,
    given: PictureParameters,
    filename: str,
) -> PictureInput | None:
    """The picture of the model as its file declares it, with its open dimensions fixed."""
    inputs = [replace(node, shape=tuple(dimensions.get(str(dim), dim) for dim in node.shape)) for node in head.inputs]
    specs = derive_specs(description.name, inputs, head.outputs, description.max_batch_size).specs
    return picture_of(EngineSpecs(specs.inputs, (), specs.max_batch_size, specs.has_batch_dimension), given, filename)


def _open_dimensions(head: OnnxHead, given: PictureParameters, filename: str) -> dict[str, int]:
    """The height and the width that the file leaves open, by name, fixed by `image_size`."""
    if given.image_size is None:
        return {}
    width, height = given.image_size
    for node in head.inputs:
        axes = _axes(node, given)
        if axes is None:
            continue
        found: dict[str, int] = {}
        for axis, side in zip(axes, (height, width), strict=True):
            name = node.shape[axis]
            if isinstance(name, int):
                continue
            if name is None or found.get(name, side) != side or name == node.shape[0]:
                raise ConfigError(
                    f"{filename}: image_size cannot fix input {node.name!r} {list(node.shape)}, whose height and width "
                    "have no names of their own: export the model with a fixed size"
                )
            found[name] = side
        return found
    return {}


def _axes(node: NodeInfo, given: PictureParameters) -> tuple[int, int] | None:
    """Of height and width of a picture [N, 3, H, W] or [N, H, W, 3]; None if it is no picture."""
    if len(node.shape) != 4:
        return None
    if node.shape[1] in CHANNELS and given.layout != "NHWC":
        return 2, 3
    return (1, 2) if node.shape[3] in CHANNELS else None
