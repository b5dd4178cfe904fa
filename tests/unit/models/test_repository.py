import contextlib
import os
from pathlib import Path

import pytest

from forebay_server.service.models.repository import MissingRepositoryError, Repository, RepositoryError


def make(root, *names, text=""):
    """Create files; a name that ends in a slash is a folder."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def problem(root):
    with pytest.raises(RepositoryError) as caught:
        Repository([root]).models()
    assert str(root) not in str(caught.value)
    return str(caught.value)


def test_models_and_versions_come_in_order(tmp_path):
    make(tmp_path, "b/10/model.onnx", "b/2/model.onnx", "a/config.pbtxt", "a/1/model.plan")
    entries = Repository([tmp_path]).models()
    assert [(entry.name, entry.versions) for entry in entries] == [("a", (1,)), ("b", (2, 10))]


def test_files_hidden_folders_and_caches_are_passed_over(tmp_path):
    make(
        tmp_path, "README.md", ".git/1/x", "__pycache__/x.pyc", "m/1/model.onnx", "m/labels.txt", "m/warmup/data", "m/7"
    )
    assert [(entry.name, entry.versions) for entry in Repository([tmp_path]).models()] == [("m", (1,))]


def test_an_empty_repository_has_no_models(tmp_path):
    assert Repository([tmp_path]).models() == []


def test_several_repositories_are_seen_as_one(tmp_path):
    one, two = make(tmp_path / "one", "b/1/model.onnx"), make(tmp_path / "two", "a/1/model.onnx")
    assert [entry.name for entry in Repository([one, two]).models()] == ["a", "b"]


def test_a_name_in_two_repositories_is_a_problem(tmp_path):
    one, two = make(tmp_path / "one", "a/1/model.onnx"), make(tmp_path / "two", "a/1/model.onnx")
    with pytest.raises(RepositoryError, match=r"model 'a' is there 2 times \(one/a, two/a\): rename"):
        Repository([one, two]).models()


def test_a_configuration_alone_is_a_model_without_versions(tmp_path):
    make(tmp_path, "m/config.pbtxt")
    assert Repository([tmp_path]).models()[0].versions == ()


NO_NAMES = ["my model", "-m", "@eaDir", "lost+found", "#recycle", "modèle", "m" * 129]
NO_MODELS = ["__MACOSX", "empty", "System_Volume_Information"]


@pytest.mark.parametrize("name", NO_NAMES + NO_MODELS)
def test_a_folder_that_cannot_be_a_model_is_passed_over_with_a_line(tmp_path, name):
    make(tmp_path, f"{name}/._file", "good/1/model.onnx")
    repository = Repository([tmp_path])
    assert [entry.name for entry in repository.models()] == ["good"]
    scan = repository.scan()
    assert scan.problems == ()
    assert scan.broken == frozenset()
    assert scan.empty == {name} - set(NO_NAMES), "what serves from there serves on"
    (line,) = scan.passed_over
    assert line.startswith(f"{name!r} is passed over")


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_cannot_be_a_models_is_passed_over_whatever_is_in_it(tmp_path, name):
    make(tmp_path, f"{name}/1/model.onnx")
    assert Repository([tmp_path]).models() == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("m/model.onnx",), "m: no config.pbtxt and no version folder: move m/model.onnx to m/1/model.onnx"),
        (("m/0/model.onnx",), "m/0 is no version, which is a number from 1"),
        (("m/007/model.onnx",), "m/007 is no version, which is a number from 1 to 9223372036854775807 without leading"),
        ((f"m/{2**63}/model.onnx",), "is no version"),
        ((f"m/{'9' * 200}/model.onnx",), "is no version"),
    ],
)
def test_a_model_without_a_version_is_told_with_its_fix(tmp_path, files, words):
    assert words in problem(make(tmp_path, *files))


@pytest.mark.parametrize("folder", ["0", "01", "001", "00", "-1", "1.5", "2_old", "2 (copy)", str(2**63)])
def test_a_folder_that_is_no_version_is_passed_over_with_a_line(tmp_path, folder):
    make(tmp_path, "m/1/model.onnx", f"m/{folder}/model.onnx", "m/warmup/data", "m/src/x", "m/3")
    (entry,) = Repository([tmp_path]).models()
    assert entry.versions == (1,)
    (line,) = entry.passed_over
    assert line.startswith(f"m/{folder} is no version")


def test_a_scan_tells_every_problem_and_still_finds_the_good_models(tmp_path):
    make(tmp_path, "good/1/model.onnx", "bad/model.onnx", "also bad/", "worse/01/model.onnx")
    scan = Repository([tmp_path]).scan()
    assert [entry.name for entry in scan.models] == ["good"]
    assert len(scan.problems) == 2
    assert scan.broken == {"bad", "worse"}
    assert len(scan.passed_over) == 1


def test_one_model_is_found_whatever_the_others_look_like(tmp_path):
    make(tmp_path, "good/1/model.onnx", "bad/")
    assert Repository([tmp_path]).model("good").versions == (1,)


@pytest.mark.parametrize("name", ["nobody", "", "..", "good/1", "../good", "/etc", "good\0"])
def test_an_unknown_or_impossible_name_is_no_model(tmp_path, name):
    make(tmp_path, "good/1/model.onnx")
    with pytest.raises(RepositoryError, match="no model"):
        Repository([tmp_path]).model(name)


@pytest.mark.parametrize("link", ["m", "m/2", "m/1/model.onnx"])
def test_a_link_that_leads_out_is_refused(tmp_path, link):
    outside = make(tmp_path / "outside", "1/model.onnx", "2/model.onnx")
    root = make(tmp_path / "root", "m/config.pbtxt" if link != "m" else "other/1/model.onnx")
    path = root / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside / "1" / "model.onnx" if link.endswith("onnx") else outside)
    with pytest.raises(RepositoryError, match="leads out of the repository") as caught:
        Repository([root]).model("m").file("1", "model.onnx")
    assert str(tmp_path) not in str(caught.value)


def test_a_link_that_stays_inside_is_followed(tmp_path):
    make(tmp_path, "m/1/model.onnx")
    (tmp_path / "m" / "2").symlink_to(tmp_path / "m" / "1")
    entry = Repository([tmp_path]).model("m")
    assert entry.versions == (1, 2)
    assert entry.file("2", "model.onnx") == tmp_path / "m" / "2" / "model.onnx"


def test_a_loop_of_links_is_a_missing_file_and_no_crash(tmp_path):
    make(tmp_path, "m/1/x")
    (tmp_path / "m" / "1" / "model.onnx").symlink_to(tmp_path / "m" / "1" / "model.onnx")
    found = None
    with contextlib.suppress(RepositoryError):  # raised before Python 3.13
        found = Repository([tmp_path]).model("m").file("1", "model.onnx")
    assert found is None


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "a/b", "a\\b", "/etc/passwd", "a\0b"])
def test_a_file_name_with_folders_is_refused(tmp_path, name):
    make(tmp_path, "m/1/model.onnx", "secret")
    with pytest.raises(RepositoryError, match="no plain file name"):
        Repository([tmp_path]).model("m").file(name)


def test_a_file_name_that_no_file_system_takes_is_refused(tmp_path):
    make(tmp_path, "m/1/model.onnx")
    with pytest.raises(RepositoryError, match="shorten it"):
        Repository([tmp_path]).model("m").file("é" * 200)


def test_the_operator_reads_the_whole_path_of_a_missing_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "best.onnx", "clip.mp4")
    for wrong, words in (
        ("nowhere", "does not exist: name a folder of models, or a model file (.onnx"),
        ("nowhere", f"; in {tmp_path}: best.onnx"),
        ("bets.onnx", f"; did you mean {tmp_path}/best.onnx?"),
        ("clip.mp4", "is neither a folder nor a model file, whose name ends in .onnx, "),
    ):
        with pytest.raises(MissingRepositoryError) as caught:
            Repository([Path(wrong)])
        assert str(caught.value).startswith(f"model repository '{tmp_path}/{wrong}' ")
        assert words in str(caught.value)


@pytest.mark.parametrize("config", [True, False], ids=["config", "no config"])
def test_a_models_own_folder_is_not_taken_for_a_repository(tmp_path, config):
    make(tmp_path, "net/1/model.onnx", *(["net/config.pbtxt"] if config else []))
    problems = Repository([tmp_path / "net"]).scan().problems
    assert problems == (
        "net/1 is a version of a model, so 'net' is a model and no repository: name the folder that holds 'net'",
    )


def test_no_repository_at_all_is_an_error():
    with pytest.raises(RepositoryError, match="name a folder"):
        Repository([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", [".", "net"])
def test_a_folder_that_may_not_be_read_is_a_problem_in_words(tmp_path, closed):
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(RepositoryError, match="cannot be read: Permission denied"):
            Repository([tmp_path]).models()
    finally:
        (tmp_path / closed).chmod(0o700)
