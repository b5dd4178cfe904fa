import contextlib
import os

import pytest

from service.models.repository import Repository, RepositoryError


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
    with pytest.raises(RepositoryError, match="model 'a' is in 2 repositories: rename"):
        Repository([one, two]).models()


def test_a_configuration_alone_is_a_model_without_versions(tmp_path):
    make(tmp_path, "m/config.pbtxt")
    assert Repository([tmp_path]).models()[0].versions == ()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("m/",), "m: no config.pbtxt and no version folder: put the model file in m/1"),
        (("m/0/model.onnx",), "m/0: versions are numbers from 1"),
        (("m/007/model.onnx",), "m/007: versions are numbers from 1 without leading zeros"),
        ((f"m/{2**63}/model.onnx",), "a version is above"),
        ((f"m/{'9' * 200}/model.onnx",), "a version is above"),
        (("my model/1/model.onnx",), "'my model' cannot be a model's name"),
        (("-m/1/model.onnx",), "'-m' cannot be a model's name"),
        (("modèle/1/model.onnx",), "cannot be a model's name"),
        ((f"{'m' * 129}/1/model.onnx",), "at most 128"),
    ],
)
def test_a_folder_that_is_no_model_is_told_with_its_fix(tmp_path, files, words):
    assert words in problem(make(tmp_path, *files))


def test_a_scan_tells_every_problem_and_still_finds_the_good_models(tmp_path):
    make(tmp_path, "good/1/model.onnx", "bad/", "also bad/")
    scan = Repository([tmp_path]).scan()
    assert [entry.name for entry in scan.models] == ["good"]
    assert len(scan.problems) == 2


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


def test_a_missing_repository_is_told_by_its_name_only(tmp_path):
    with pytest.raises(RepositoryError, match="'nowhere' is not a folder") as caught:
        Repository([tmp_path / "nowhere"])
    assert str(tmp_path) not in str(caught.value)


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
