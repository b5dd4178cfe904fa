"""Valid and invalid `model_warmup`, and the resulting arrays."""

import struct

import numpy as np
import pytest

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.datatypes import DTYPE_BY_NAME
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models import warmup_samples
from forebay_server.service.models.config import describe
from forebay_server.service.models.repository import Repository, RepositoryError
from forebay_server.service.models.warmup_samples import inputs_of
from tests.support.repository import ROOT


def spec(name="x", datatype="FP32", shape=(2, 3)):
    return TensorSpec(name, DTYPE_BY_NAME[datatype], shape)


def specs(*inputs, rows=4, has_batch=True):
    return EngineSpecs(inputs or (spec(),), (spec("y"),), rows if has_batch else 1, has_batch_dimension=has_batch)


def tensor(name="x", datatype="FP32", dims=(2, 3), data="zero_data: true"):
    return f'inputs {{ key: "{name}" value {{ data_type: TYPE_{datatype} dims: {list(dims)} {data} }} }}'


def sample(*tensors, batch_size=1, more=""):
    return f'model_warmup {{ name: "w" batch_size: {batch_size} {more} {" ".join(tensors or [tensor()])} }}'


def read(tmp_path, text, **files):
    """The samples of a model's configuration; `files` are in its folder `warmup`."""
    folder = tmp_path / "m" / "warmup"
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "m" / "1").mkdir(exist_ok=True)
    (tmp_path / "m" / "1" / "model.onnx").touch()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    return describe(Repository([tmp_path]).model("m")).warmup


def arrays(tmp_path, text, model=None, config=None, **files):
    (one,) = read(tmp_path, text, **files)
    return inputs_of(one, config or ModelConfig(), model or specs())


def test_a_sample_keeps_its_rows_and_runs_once_unless_it_says_more(tmp_path):
    once, often = read(tmp_path, sample(batch_size=3) + sample(more="count: 5"))
    assert (once.rows, once.count) == (3, 1)
    assert (often.rows, often.count) == (1, 5)
    assert once.where == "m/config.pbtxt: model_warmup 'w'"


def test_a_sample_of_no_rows_is_left_out(tmp_path):
    assert read(tmp_path, sample(batch_size=0)) == ()


def test_zeros_are_zeros_in_every_row(tmp_path):
    (array,) = arrays(tmp_path, sample(batch_size=3))
    np.testing.assert_array_equal(array, np.zeros((3, 2, 3), np.float32), strict=True)


@pytest.mark.parametrize("datatype", sorted(set(DTYPE_BY_NAME) - {"BYTES"}))
def test_random_data_are_finite_repeat_and_fit_their_type(tmp_path, datatype):
    text = sample(tensor(datatype=datatype, dims=(1000,), data="random_data: true"), batch_size=2)
    model = specs(spec(datatype=datatype, shape=(1000,)))
    (array,), (again,) = arrays(tmp_path, text, model), arrays(tmp_path, text, model)
    assert array.dtype == DTYPE_BY_NAME[datatype]
    np.testing.assert_array_equal(array, again)
    np.testing.assert_array_equal(array[0], array[1])
    if datatype == "BF16":
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert 0 <= array.min() < array.max() <= (1 if array.dtype.kind in "fb" else 255)


@pytest.mark.parametrize("data", ["zero_data: true", "random_data: true"])
def test_byte_strings_are_empty_as_with_triton(tmp_path, data):
    text = sample(tensor(datatype="STRING", dims=(2,), data=data), batch_size=2)
    (array,) = arrays(tmp_path, text, specs(spec(datatype="BYTES", shape=(-1,))))
    assert array.tolist() == [["", ""], ["", ""]]


@pytest.mark.parametrize("rows_in_file", [1, 3])
def test_a_file_has_one_row_for_all_or_every_row(tmp_path, rows_in_file):
    values = np.arange(rows_in_file * 6, dtype=np.float32)
    text = sample(tensor(data='input_data_file: "row"'), batch_size=3)
    (array,) = arrays(tmp_path, text, row=values.tobytes())
    np.testing.assert_array_equal(array, np.resize(values, (3, 2, 3)), strict=True)


def test_a_file_of_byte_strings_has_their_lengths_before_them(tmp_path):
    strings = [b"one", b"", "drei \u00fc".encode()]
    data = b"".join(struct.pack("<I", len(string)) + string for string in strings)
    text = sample(tensor(datatype="STRING", dims=(3,), data='input_data_file: "words"'), batch_size=2)
    (array,) = arrays(tmp_path, text, specs(spec(datatype="BYTES", shape=(3,))), words=data)
    assert array.tolist() == [["one", "", "drei \u00fc"]] * 2


def test_a_file_may_lie_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "m" / "warmup" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "warmup" / "deep" / "row").write_bytes(bytes(24))
    (array,) = arrays(tmp_path, sample(tensor(data='input_data_file: "deep/row"')))
    assert array.shape == (1, 2, 3)


def test_inputs_come_in_the_models_order(tmp_path):
    text = sample(tensor("b", dims=(1,)), tensor("a", dims=(2,)))
    model = specs(spec("a", shape=(2,)), spec("b", shape=(1,)))
    assert [array.shape for array in arrays(tmp_path, text, model)] == [(1, 2), (1, 1)]


def test_a_model_without_a_batch_takes_the_whole_shape(tmp_path):
    (array,) = arrays(tmp_path, sample(), specs(has_batch=False))
    assert array.shape == (2, 3)


def test_a_dimension_that_varies_may_be_any(tmp_path):
    (array,) = arrays(tmp_path, sample(tensor(dims=(7, 3)), batch_size=2), specs(spec(shape=(-1, 3))))
    assert array.shape == (2, 7, 3)


def test_a_reshape_is_done_as_for_requests(tmp_path):
    config = ModelConfig()
    config.input.add(name="x", dims=[6])
    (array,) = arrays(tmp_path, sample(tensor(dims=(6,)), batch_size=2), config=config)
    assert array.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (sample(more="count: 10001"), "count is 10001: at most 10000 runs"),
        ("model_warmup { batch_size: 1 }", "model_warmup 1: no inputs: give every input of the model"),
        (sample(tensor(datatype="INVALID")), "input 'x': data_type is TYPE_INVALID: write the type"),
        (sample(tensor(dims=(-1, 3))), "dims are [-1, 3]: write a number for every dimension that varies"),
        (sample(tensor(data="")), "no data: write one of zero_data, random_data, input_data_file"),
        (sample(tensor(data='input_data_file: "gone"')), "warmup/gone is not in the folder m: put it there"),
        (sample(tensor(data='input_data_file: "../config.pbtxt"')), "'..' is no plain file name"),
        (sample(tensor(data='input_data_file: "/etc/passwd"')), "'' is no plain file name"),
        (sample(tensor(data='input_data_file: ""')), "'' is no plain file name"),
        (sample(tensor(data='input_data_file: "link"')), "a link that leads out of the repository"),
    ],
)
def test_a_sample_that_cannot_be_meant_is_told_with_its_fix(tmp_path, text, words):
    (tmp_path / "m" / "warmup").mkdir(parents=True)
    (tmp_path / "m" / "warmup" / "link").symlink_to(ROOT / "LICENSE")
    with pytest.raises(RepositoryError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_wrong_sample_is_told_with_all_else_that_is_wrong(tmp_path):
    with pytest.raises(RepositoryError) as caught:
        read(tmp_path, "max_batch_size: -1 " + sample(more="count: 10001"))
    assert "max_batch_size is -1" in str(caught.value)
    assert "model_warmup 'w': count is 10001" in str(caught.value)


WORDS = spec(datatype="BYTES", shape=(2,))


@pytest.mark.parametrize(
    ("text", "model", "data", "words"),
    [
        (sample(batch_size=5), specs(), b"", "batch_size is 5, but the model takes at most 4 rows: lower it"),
        (sample(batch_size=2), specs(has_batch=False), b"", "but the model takes no batch dimension"),
        (sample(tensor("z"), tensor()), specs(), b"", "the model has no input 'z': it has x"),
        (sample(), specs(spec(), spec("z")), b"", "input 'z' is missing: the model takes x, z"),
        (sample(tensor(datatype="FP64")), specs(), b"", "data_type is TYPE_FP64, but the model has TYPE_FP32"),
        (sample(tensor(dims=(3, 2))), specs(), b"", "dims are [3, 2], but the model takes [2, 3]"),
        (sample(tensor(dims=(6,))), specs(), b"", "dims are [6], but the model takes [2, 3]"),
        (
            sample(tensor(dims=(2**40, 2**40))),
            specs(spec(shape=(-1, -1))),
            b"",
            "more than 256 MiB: lower dims or batch_size",
        ),
        (sample(tensor(data='input_data_file: "f"')), specs(), bytes(23), "warmup/f has 23 bytes, but a row has 24"),
        (sample(tensor(data='input_data_file: "f"'), batch_size=3), specs(), bytes(48), "has 48 bytes, but a row"),
        (
            sample(tensor(datatype="STRING", dims=(2,), data='input_data_file: "f"')),
            specs(WORDS),
            b"\1\0\0\0a",
            "has 1 elements, but a row has 2",
        ),
        (
            sample(tensor(datatype="STRING", dims=(2,), data='input_data_file: "f"')),
            specs(WORDS),
            b"\1\0\0\0a\xff\0\0\0b",
            "warmup/f ends within an element",
        ),
        (
            sample(tensor(datatype="STRING", dims=(2,), data='input_data_file: "f"')),
            specs(WORDS),
            b"\1\0",
            "warmup/f ends within an element",
        ),
        (
            sample(tensor(datatype="STRING", dims=(2,), data='input_data_file: "f"')),
            specs(WORDS),
            b"\1\0\0\0a\1\0\0\0\xff",
            "an element is not UTF-8",
        ),
    ],
)
def test_a_sample_that_does_not_fit_the_model_is_told_with_its_fix(tmp_path, text, model, data, words):
    with pytest.raises(RepositoryError) as caught:
        arrays(tmp_path, text, model, f=data)
    assert words in str(caught.value)
    assert str(caught.value).startswith("m/config.pbtxt: model_warmup 'w': ")
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup_samples, "MAX_SAMPLE_BYTES", 100)
    with pytest.raises(RepositoryError, match="has more than 0 MiB: this cannot be meant"):
        arrays(tmp_path, sample(tensor(data='input_data_file: "f"')), f=bytes(1000))
