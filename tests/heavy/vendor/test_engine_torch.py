"""Backend `torch` on bad model files: errors, and effects that must not happen."""

import pickle
import zipfile

import numpy as np
import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.datatypes import BF16, DTYPE_BY_NAME
from forebay_server.engines.errors import ExecutionError, MisuseError, ModelFileError
from tests.support.rig import BoundSlot, rig_of

torch = pytest.importorskip("torch")
torch_models = pytest.importorskip("tests.support.torch_models", exc_type=ImportError)
from forebay_server.engines.pytorch.program import TORCH_DTYPE_BY_NUMPY  # noqa: E402 - after the skips


@pytest.fixture
def rig():
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        yield rig


@pytest.fixture
def open_torch(rig):
    """Open a model file on the CPU."""
    return lambda path, options=None, max_batch_size=None: rig.open_engine(
        "torch", path, options=options, max_batch_size=max_batch_size
    )


def test_a_missing_file_is_named(open_torch, tmp_path):
    with pytest.raises(ModelFileError, match=r"model\.pt2: no such file"):
        open_torch(tmp_path / "model.pt2")


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
@pytest.mark.parametrize("damage", [b"", b"no archive at all", "truncated"])
def test_a_broken_file_is_a_clear_error(open_torch, tmp_path, name, damage):
    path = tmp_path / name
    if damage == "truncated":
        write = torch_models.write_add_sub if name == "model.pt2" else torch_models.write_script
        data = write(tmp_path).read_bytes()
        damage = data[: len(data) // 2]
    path.write_bytes(damage)
    with pytest.raises(ModelFileError, match=name):
        open_torch(path, {"inputs": "first:INT32:16;second:INT32:16"} if name == "model.pt" else None)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an object was unpickled",))


def test_an_archive_with_pickled_objects_is_refused_unread(open_torch, tmp_path):
    path = torch_models.write_add_sub(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/data/constants/custom_obj_0", pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError, match="pickled object"):
        open_torch(path)


def test_pickled_sample_inputs_are_not_unpickled(open_torch, tmp_path):
    path, armed = torch_models.write_add_sub(tmp_path), tmp_path / "armed.pt2"
    torch.save(Bomb(), tmp_path / "bomb")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(armed, "w") as target:
        for name in source.namelist():
            is_sample = "sample_inputs" in name
            target.writestr(name, (tmp_path / "bomb").read_bytes() if is_sample else source.read(name))
    with pytest.raises(ModelFileError):
        open_torch(armed)


def test_more_rows_than_the_program_was_exported_for_are_refused(open_torch, tmp_path):
    path = torch_models.write_add_sub(tmp_path)
    with pytest.raises(ModelFileError, match="at most 16 rows"):
        open_torch(path, max_batch_size=17)


def test_torchscript_without_shapes_says_which_option_to_set(open_torch, tmp_path):
    with pytest.raises(ModelFileError, match="set option inputs"):
        open_torch(torch_models.write_script(tmp_path))


@pytest.mark.parametrize("inputs", ["first", "first:NOTYPE:3", "first:INT32:3:4"])
def test_malformed_inputs_are_refused(open_torch, tmp_path, inputs):
    with pytest.raises(ModelFileError, match="NAME:TYPE:DIMS"):
        open_torch(torch_models.write_script(tmp_path), {"inputs": inputs})


def test_torchscript_outputs_can_be_declared(open_torch, tmp_path):
    options = {"inputs": "first:INT32:16;second:INT32:16", "outputs": "sum:INT32:16;difference:INT32:16"}
    engine = open_torch(torch_models.write_script(tmp_path), options, 4)
    assert [spec.name for spec in engine.specs.outputs] == ["sum", "difference"]


@pytest.mark.parametrize("configured", ["INT64", "FP32", "INT8"])
def test_an_output_of_another_type_than_configured_is_not_converted(tmp_path, configured):
    path = torch_models.write_script(tmp_path)
    options = {
        "inputs": "first:INT32:16;second:INT32:16",
        "outputs": f"sum:INT32:16;difference:{configured}:16",
    }
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        engine = rig.open_engine("torch", path, options=options, max_batch_size=2)
        slot = BoundSlot(rig, engine, 0)
        with pytest.raises(ExecutionError, match=f"output 'difference' is int32, but {configured} is configured"):
            engine.warm_up((1, 2), slot.compute)


@pytest.mark.parametrize("form", ["model.pt2", "model.pt"])
def test_bfloat16_is_served_as_its_bits(tmp_path, form):
    if form == "model.pt2":
        path, options = torch_models.write_doubled(tmp_path, torch.bfloat16), {}
    else:
        path, options = torch_models.script(torch_models.Doubled(), tmp_path / form), {"inputs": "x:BF16:4"}
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        engine = rig.open_engine("torch", path, options=options, max_batch_size=2)
        assert [spec.dtype for spec in (*engine.specs.inputs, *engine.specs.outputs)] == [BF16, BF16]
        slot = BoundSlot(rig, engine, 0)
        engine.warm_up((1, 2), slot.compute)
        (doubled,) = slot.run([torch_models.bfloat16(1, -0.5, 3, 1e30).reshape(1, 4)])
        np.testing.assert_array_equal(doubled, torch_models.bfloat16(2, -1, 6, 2e30).reshape(1, 4))


class Forgetful(torch.nn.Module):
    """Writes the first half of the rows' columns only."""

    def forward(self, x):
        made = torch.empty_like(x)
        made[:, : x.shape[1] // 2] = 1
        return x, made


class Odd(torch.nn.Module):
    """Random numbers, NaN and the largest integers, all of them computed."""

    def forward(self, x):
        largest = torch.full_like(x, 2**31 - 1, dtype=torch.int32)
        made = torch.empty_like(x)
        made.copy_(x)
        return torch.rand_like(x), x / x, largest, torch.randint_like(x, 0, 256).to(torch.uint8), x > 0, made


@pytest.mark.parametrize("form", ["model.pt2", "model.pt"])
@pytest.mark.parametrize("dtype", ["FP32", "FP16", "BF16", "INT32", "INT64", "INT16", "UINT8", "BOOL"])
def test_results_in_memory_that_the_model_never_wrote_are_refused(rig, open_torch, tmp_path, form, dtype):
    example = torch.zeros(2, 4, dtype=TORCH_DTYPE_BY_NUMPY[DTYPE_BY_NAME[dtype]])
    if form == "model.pt2":
        path, options = torch_models.export(Forgetful(), (example,), tmp_path / form), None
    else:
        path, options = torch_models.script(Forgetful(), tmp_path / form), {"inputs": f"x:{dtype}:4"}
    engine = open_torch(path, options, 4)
    slot = BoundSlot(rig, engine, 0)
    name = engine.specs.outputs[1].name
    with pytest.raises(ModelFileError, match=rf"output '{name}' holds \d+ elements that the model makes"):
        engine.warm_up((1, 2, 4), slot.compute)


def test_random_and_odd_results_are_served(rig, open_torch, tmp_path):
    path = torch_models.export(Odd(), (torch.zeros(2, 4),), tmp_path / "model.pt2")
    engine = open_torch(path, None, 4)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1, 2, 4), slot.compute)
    assert slot.run([np.zeros((2, 4), np.float32)])[2].tolist() == [[2**31 - 1] * 4] * 2


class OddAboveTwo(torch.nn.Module):
    def forward(self, first):
        if bool(first.max() > 2):
            raise ValueError("this row is odd")
        return first + 1


def test_a_batch_that_fails_is_an_execution_error_and_the_next_one_runs(rig, open_torch, tmp_path):
    engine = open_torch(torch_models.script(OddAboveTwo(), tmp_path / "model.pt"), {"inputs": "first:INT32:4"}, 2)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1, 2), slot.compute)
    with pytest.raises(ExecutionError):
        slot.run([torch.full((1, 4), 9, dtype=torch.int32).numpy()])
    assert slot.run([torch.ones(1, 4, dtype=torch.int32).numpy()])[0].tolist() == [[2, 2, 2, 2]]
    assert (engine.launches.graph, engine.launches.plain) == (0, 1)


def test_a_closed_engine_gives_nothing(open_torch, tmp_path):
    engine = open_torch(torch_models.write_add_sub(tmp_path))
    engine.close()
    with pytest.raises(MisuseError):
        engine.enqueue(0, 1, None)


def rewritten(source, target, changes):
    """Write a copy of an archive whose members `changes` (name without the folder -> function of the bytes) differ."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            for end, change in changes.items():
                data = change(data) if name.endswith(f"/{end}") else data
            new.writestr(name, data)
    return target


def in_graph(old, new):
    def change(document):
        assert old in document, "PyTorch writes its graphs differently now"
        return document.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"torch.ops.aten.add.Tensor"', b'"torch.os.mkdir"'),
        (b"\"Symbol('s", b"\"__import__('os').mkdir('PWNED') or Symbol('s"),
        (b'"guards_code": [', b"\"guards_code\": [\"__import__('os').mkdir('PWNED') or True\", "),
        (b'{"name": "first"}', b"{\"name\": \"first=__import__('os').mkdir('PWNED')\"}"),
    ],
    ids=["an operator", "a size", "a guard", "a name"],
)
def test_nothing_but_operators_of_tensors_is_called(open_torch, tmp_path, monkeypatch, old, new):
    monkeypatch.chdir(tmp_path)
    path = torch_models.write_add_sub(tmp_path)
    hostile = rewritten(path, tmp_path / "hostile.pt2", {"models/model.json": in_graph(old, new)})
    with pytest.raises(ModelFileError):
        open_torch(hostile)
    assert not (tmp_path / "PWNED").exists()


def test_pickled_constants_are_not_unpickled_under_any_name(open_torch, tmp_path):
    """PyTorch unpickles a constant whose name begins with a word; the name may go on with folders."""
    path, armed = torch_models.write_echo(tmp_path), tmp_path / "armed.pt2"
    table = b'{"config": {"c": {"path_name": "%s", "is_param": false, "use_pickle": true, "tensor_meta": null}}}'
    for name in ("opaque_obj_x/tensor_0", "custom_obj_x/tensor_0"):
        change = {"data/constants/model_constants_config.json": lambda _, name=name: table % name.encode()}
        rewritten(path, armed, change)
        with zipfile.ZipFile(armed, "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{root}/data/constants/{name}", pickle.dumps(Bomb()))
        with pytest.raises(ModelFileError, match="holds a pickled object"):
            open_torch(armed)


def test_a_zip_bomb_is_refused_before_it_unfolds(open_torch, tmp_path):
    path, bomb = torch_models.write_script(tmp_path), tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(1 << 30) if name.endswith("/data.pkl") else old.read(name))
    assert bomb.stat().st_size < 4 << 20
    with pytest.raises(ModelFileError, match="unfolds to 1024 MiB"):
        open_torch(bomb, {"inputs": "first:INT32:16;second:INT32:16"})


class Reader(torch.nn.Module):
    def forward(self, x):
        return torch.from_file("secret", False, 4, dtype=torch.uint8) + x


def test_torchscript_that_reads_files_is_refused(open_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"1234")
    with pytest.raises(ModelFileError, match="has the name 'from_file'"):
        open_torch(torch_models.script(Reader(), tmp_path / "model.pt"), {"inputs": "x:UINT8:4"})


@pytest.mark.parametrize(
    ("old_name", "new_name", "replacement"),
    [
        ("/code/", "/CODE/", b"torch.from_file"),
        (".py", ".PY", b"torch.from_file"),
        ("", "", b'getattr(torch, "from_" "file")'),
        ("", "", b'getattr(torch, "from\\137file")'),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_that_hides_that_it_reads_files_is_refused(  # PyTorch itself loads all of these
    open_torch, tmp_path, old_name, new_name, replacement
):
    path, hidden = torch_models.script(Reader(), tmp_path / "model.pt"), tmp_path / "hidden.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(hidden, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py"):
                assert b"torch.from_file" in content
                content = content.replace(b"torch.from_file", replacement)
                new.writestr(name.replace(old_name, new_name), content)
            else:
                new.writestr(name, content)
    torch.jit.load(str(hidden))
    with pytest.raises(ModelFileError, match=r"has the name 'from_file'|looks up a name by getattr"):
        open_torch(hidden, {"inputs": "x:UINT8:4"})


@pytest.mark.parametrize("saved", [Bomb(), {"weight": torch.zeros(2)}], ids=["module", "state_dict"])
@pytest.mark.parametrize("options", [{}, {"inputs": "x:UINT8:4"}], ids=["undeclared", "declared"])
def test_pickled_objects_are_not_called_torchscript(open_torch, tmp_path, saved, options):
    torch.save(saved, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="no program: export the model") as caught:
        open_torch(tmp_path / "model.pt", options)
    assert "TorchScript" not in str(caught.value)
