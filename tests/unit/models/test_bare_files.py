"""A model file in a repository, or in its place, is a model without a folder."""

import pytest

from forebay_server.service.models.bare_files import model_name
from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file
from forebay_server.service.models.fingerprints import fingerprints_of
from forebay_server.service.models.repository import Repository, RepositoryError
from tests.unit.models.test_repository import make


def entries(*paths):
    return [(entry.name, entry.versions) for entry in Repository(paths).models()]


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("best.onnx", "best"),
        ("yolo.v8.plan", "yolo.v8"),
        ("a.pt2", "a"),
        ("a.pt", "a"),
        (".onnx", None),
        ("a.txt", None),
    ],
)
def test_a_model_is_named_after_its_file(filename, name):
    assert model_name(filename) == name


def test_files_and_folders_are_models_side_by_side(tmp_path):
    make(tmp_path, "best.onnx", "old/1/model.onnx", "yolo.plan", "readme.txt", ".hidden.onnx", "best.onnx.data")
    assert entries(tmp_path) == [("best", (1,)), ("old", (1,)), ("yolo", (1,))]


def test_a_file_in_place_of_a_repository_is_its_only_model(tmp_path):
    make(tmp_path, "best.onnx", "other.onnx", "best/1/model.onnx")
    assert entries(tmp_path / "best.onnx") == [("best", (1,))]
    assert entries(tmp_path / "best.onnx", tmp_path / "best.onnx", tmp_path / "other.onnx") == [
        ("best", (1,)),
        ("other", (1,)),
    ]


def test_a_trainers_own_file_is_a_model_only_if_it_is_named(tmp_path):
    make(tmp_path, "best.pt", "best.onnx")
    assert entries(tmp_path) == [("best", (1,))]
    assert Repository([tmp_path]).model("best").path.name == "best.onnx"
    assert Repository([tmp_path / "best.pt"]).model("best").path.name == "best.pt"


@pytest.mark.parametrize("others", [["best.plan"], ["best/1/model.onnx"]])
def test_two_models_of_one_name_are_a_problem_that_names_both(tmp_path, others):
    make(tmp_path, "best.onnx", *others)
    with pytest.raises(RepositoryError, match=r"model 'best' is there 2 times .*best\.onnx.*: rename"):
        Repository([tmp_path]).models()


def test_a_file_whose_name_is_no_models_is_passed_over_with_a_line(tmp_path):
    make(tmp_path, "my model.onnx")
    assert Repository([tmp_path]).scan().passed_over == (
        "'my model' is passed over, since it cannot be a model's name: letters, digits, '_', '-' and '.', at most 128",
    )


def test_a_link_that_leads_out_of_the_repository_is_refused(tmp_path):
    make(tmp_path, "outside/secret.onnx", "repository/")
    (tmp_path / "repository" / "best.onnx").symlink_to(tmp_path / "outside" / "secret.onnx")
    with pytest.raises(RepositoryError, match=r"best\.onnx: a link that leads out"):
        Repository([tmp_path / "repository"]).models()


def test_its_files_stand_for_those_of_a_folder(tmp_path):
    make(tmp_path, "best.onnx", "labels.txt", "best.pbtxt", text="")
    entry = Repository([tmp_path]).model("best")
    assert entry.file("1", "model.onnx") == tmp_path / "best.onnx"
    assert entry.file("config.pbtxt") == tmp_path / "best.pbtxt"
    assert entry.file("labels.txt") == tmp_path / "labels.txt"
    assert entry.file("1", "model.plan") is None
    assert entry.file("2", "model.onnx") is None
    assert entry.file("warmup", "data") is None


def test_labels_of_its_own_go_before_those_of_all_files_beside_them(tmp_path):
    make(tmp_path, "best.onnx", "other.onnx", "labels.txt", "best.labels.txt")
    models = Repository([tmp_path])
    assert models.model("best").file("labels.txt") == tmp_path / "best.labels.txt"
    assert models.model("other").file("labels.txt") == tmp_path / "labels.txt"


def test_a_file_that_the_operator_names_is_scanned_whatever_its_suffix(tmp_path):
    """In a folder, a `best.pt` is a trainer's own file."""
    make(tmp_path, "best.pt")
    assert [entry.name for entry in Repository([tmp_path / "best.pt"]).models()] == ["best"]
    assert Repository([tmp_path]).models() == []


def test_its_configuration_lies_beside_it_and_messages_name_it(tmp_path):
    make(tmp_path, "best.onnx")
    (tmp_path / "best.pbtxt").write_text('parameters { key: "task" value { string_value: "detecting" } }')
    entry = Repository([tmp_path]).model("best")
    with pytest.raises(RepositoryError, match=r"^best\.pbtxt: parameter 'task'"):
        describe(entry)
    (tmp_path / "best.pbtxt").write_text("max_batch_size: 4")
    description = describe(entry)
    assert (description.backend, description.max_batch_size) == ("onnxruntime", 4)
    assert model_file(entry, 1, description) == tmp_path / "best.onnx"


def test_a_changed_file_changes_the_version_and_a_changed_label_the_rest(tmp_path):
    make(tmp_path, "best.onnx", "other.onnx")
    entry = Repository([tmp_path]).model("best")
    before = fingerprints_of(entry)
    (tmp_path / "other.onnx").write_text("new")
    assert fingerprints_of(entry) == before
    (tmp_path / "best.onnx").write_text("new")
    changed = fingerprints_of(entry)
    assert (changed["1"] != before["1"], changed[""] == before[""]) == (True, True)
    (tmp_path / "labels.txt").write_text("cat")
    assert (fingerprints_of(entry)["1"], fingerprints_of(entry)[""] == before[""]) == (changed["1"], False)
