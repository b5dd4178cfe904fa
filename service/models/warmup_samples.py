"""`model_warmup` of a configuration: requests that every instance runs before its version serves.

`read_samples` checks the configuration by itself, `inputs_of` makes the arrays once the model is known. Data files are
in the model's folder `warmup`; their names are checked as all names in a repository are.

Zeros and random numbers are made here: floats from 0 to 1, whole numbers from 0 to 255 or to the maximum of the type,
from a fixed seed. BYTES are empty strings for both, as with Triton.

Thread: any; reads files, so never the event loop's.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay.wire.model_config_pb2 import DataType, ModelConfig, ModelWarmup
from forebay_server.engines.datatypes import BF16, DTYPE_BY_NAME, NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.repository import ModelEntry

FOLDER = "warmup"
MAX_COUNT = 10_000  # runs of one sample: more is a mistake, and a version that never gets ready
MAX_SAMPLE_BYTES = 256 << 20  # equal to the limit for the inputs of all requests of a version with varying shapes
SEED = 0
MAX_RANDOM = 256
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SampleInput:
    """One input of a sample.

    Attributes:
        name: of the input.
        dtype: as written.
        dims: without the batch dimension, all known.
        source: `zero`, `random`, or the file that has one row, or as many as the sample.
        filename: of the file, for messages.
    """

    name: str
    dtype: np.dtype[np.generic]
    dims: tuple[int, ...]
    source: str | Path
    filename: str = ""


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """One request.

    Attributes:
        where: file and name of the sample, for messages.
        rows: of the request.
        count: how often every instance runs it.
        inputs: as written.
    """

    where: str
    rows: int
    count: int
    inputs: tuple[SampleInput, ...]


def read_samples(config: ModelConfig, entry: ModelEntry, filename: str) -> tuple[WarmupSample, ...]:
    """Return the samples of a configuration. One of batch_size 0 is left out, as with Triton.

    Raises:
        ConfigError: an invalid sample; the message names it and a remedy.
        RepositoryError: a file name that leads out of the folder.
    """
    return tuple(
        _read_sample(sample, entry, f"{filename}: model_warmup {sample.name or number!r}")
        for number, sample in enumerate(config.model_warmup, start=1)
        if sample.batch_size
    )


def inputs_of(sample: WarmupSample, config: ModelConfig, specs: EngineSpecs) -> tuple[NDArray[Any] | None, ...]:
    """Return the inputs of a sample in the engine's order, each of shape (rows, ...), or (...) without a batch.

    None stands for an optional input that the sample leaves out.

    Args:
        sample: from `read_samples`.
        config: completed: its dims are the shapes that clients send, which a `reshape` makes different from the
            engine's.
        specs: of the engine.

    Raises:
        ConfigError: the sample does not fit the model, or a file has another size.
    """
    if sample.rows > specs.max_batch_size:
        limit = f"at most {specs.max_batch_size} rows" if specs.has_batch_dimension else "no batch dimension"
        raise ConfigError(f"{sample.where}: batch_size is {sample.rows}, but the model takes {limit}: lower it")
    given = {tensor.name: tensor for tensor in sample.inputs}
    names = [spec.name for spec in specs.inputs]
    if unknown := sorted(set(given) - set(names)):
        raise ConfigError(f"{sample.where}: the model has no input {unknown[0]!r}: it has {', '.join(names)}")
    if missing := [spec.name for spec in specs.inputs if spec.name not in given and not spec.is_optional]:
        raise ConfigError(f"{sample.where}: input {missing[0]!r} is missing: the model takes {', '.join(names)}")
    dims = {tensor.name: tuple(tensor.dims) for tensor in config.input}
    return tuple(
        _array(sample, given[spec.name], spec, dims.get(spec.name, spec.shape), specs) if spec.name in given else None
        for spec in specs.inputs
    )


def _read_sample(sample: ModelWarmup, entry: ModelEntry, where: str) -> WarmupSample:
    if sample.count > MAX_COUNT:
        raise ConfigError(f"{where}: count is {sample.count}: at most {MAX_COUNT} runs")
    if not sample.inputs:
        raise ConfigError(f"{where}: no inputs: give every input of the model")
    inputs = tuple(_read_input(name, sample.inputs[name], entry, where) for name in sorted(sample.inputs))
    return WarmupSample(where, sample.batch_size, sample.count or 1, inputs)


def _read_input(name: str, written: ModelWarmup.Input, entry: ModelEntry, where: str) -> SampleInput:
    here = f"{where}: input {name!r}"
    type_name = DataType.Name(written.data_type)
    dtype = DTYPE_BY_NAME.get({"TYPE_STRING": "BYTES"}.get(type_name, type_name.removeprefix("TYPE_")))
    if dtype is None:
        raise ConfigError(f"{here}: data_type is {type_name}: write the type that the model has")
    dims = tuple(written.dims)
    if any(dim < 0 for dim in dims):
        raise ConfigError(f"{here}: dims are {list(dims)}: write a number for every dimension that varies")
    match written.WhichOneof("input_data_type"):
        case "zero_data":
            return SampleInput(name, dtype, dims, "zero")
        case "random_data":
            return SampleInput(name, dtype, dims, "random")
        case "input_data_file":
            filename = f"{FOLDER}/{written.input_data_file}"
            path = entry.file(FOLDER, *written.input_data_file.split("/"))
            if path is None:
                raise ConfigError(f"{here}: {filename} is not in the folder {entry.name}: put it there")
            return SampleInput(name, dtype, dims, path, filename)
        case _:
            raise ConfigError(f"{here}: no data: write one of zero_data, random_data, input_data_file")


def _array(
    sample: WarmupSample, tensor: SampleInput, spec: TensorSpec, sent: Sequence[int], specs: EngineSpecs
) -> NDArray[Any]:
    here = f"{sample.where}: input {tensor.name!r}"
    if tensor.dtype != spec.dtype:
        raise ConfigError(f"{here}: data_type is {_name_of(tensor)}, but the model has {_name_of(spec)}: write that")
    if not _fits(tensor.dims, sent):
        raise ConfigError(f"{here}: dims are {list(tensor.dims)}, but the model takes {list(sent)}: write such")
    elements = math.prod(tensor.dims)
    if elements * sample.rows * tensor.dtype.itemsize > MAX_SAMPLE_BYTES:
        raise ConfigError(f"{here}: more than {MAX_SAMPLE_BYTES >> 20} MiB: lower dims or batch_size")
    rows = _rows(here, tensor, elements, sample.rows)
    # With a `reshape` in the configuration, the engine's shape differs from the client's.
    inner = tensor.dims if _fits(tensor.dims, spec.shape) else spec.shape
    return rows.reshape((sample.rows, *inner) if specs.has_batch_dimension else inner)


def _name_of(tensor: SampleInput | TensorSpec) -> str:
    name = NAME_BY_DTYPE[tensor.dtype]
    return "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"


def _fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(known in (-1, dim) for dim, known in zip(dims, shape, strict=True))


def _rows(here: str, tensor: SampleInput, elements: int, rows: int) -> NDArray[Any]:
    """Return the data, shape (rows, elements): one row repeated, unless the file has all rows."""
    if isinstance(tensor.source, Path):
        data = _from_file(here, tensor, elements, rows)
    elif tensor.dtype == np.dtype(object):
        data = np.full(elements, "", object)
    elif tensor.source == "zero":
        data = np.zeros(elements, tensor.dtype)
    else:
        data = _random(tensor.dtype, elements)
    return data.reshape(rows, elements) if len(data) == rows * elements else np.tile(data, (rows, 1))


def _random(dtype: np.dtype[Any], elements: int) -> NDArray[Any]:
    generator = np.random.default_rng(SEED)
    if dtype == BF16:  # the upper half of a float
        return (generator.random(elements).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)
    if dtype.kind == "f":
        return generator.random(elements).astype(dtype)
    most = 2 if dtype.kind == "b" else min(MAX_RANDOM, np.iinfo(dtype).max + 1)
    return generator.integers(0, most, elements).astype(dtype)


def _from_file(here: str, tensor: SampleInput, elements: int, rows: int) -> NDArray[Any]:
    assert isinstance(tensor.source, Path)  # noqa: S101 - for mypy
    try:
        with tensor.source.open("rb") as file:
            data = file.read(MAX_SAMPLE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{here}: {tensor.filename} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SAMPLE_BYTES:
        raise ConfigError(f"{here}: {tensor.filename} has more than {MAX_SAMPLE_BYTES >> 20} MiB: this cannot be meant")
    if tensor.dtype != np.dtype(object):
        row_bytes = elements * tensor.dtype.itemsize
        if len(data) not in (row_bytes, rows * row_bytes):
            raise ConfigError(f"{here}: {tensor.filename} has {len(data)} bytes, but a row has {row_bytes}")
        return np.frombuffer(data, tensor.dtype)
    strings = _strings(here, tensor.filename, data)
    if len(strings) not in (elements, rows * elements):
        raise ConfigError(f"{here}: {tensor.filename} has {len(strings)} elements, but a row has {elements}")
    found = np.empty(len(strings), object)
    found[:] = strings
    return found


def _strings(here: str, filename: str, data: bytes) -> list[str]:
    """Return BYTES elements: each with its length, four bytes little-endian, before it."""
    strings: list[str] = []
    start = 0
    while start < len(data):
        end = start + _LENGTH.size
        length = _LENGTH.unpack(data[start:end])[0] if end <= len(data) else len(data)
        if end + length > len(data):
            raise ConfigError(f"{here}: {filename} ends within an element: each has a length of 4 bytes before it")
        try:
            strings.append(data[end : end + length].decode())
        except UnicodeDecodeError:
            raise ConfigError(f"{here}: {filename}: an element is not UTF-8, which is all that is taken") from None
        start = end + length
    return strings
