"""Polling detects every change of a model's files, and nothing else."""

import os

import pytest

from forebay_server.service.models.fingerprints import fingerprints_of
from forebay_server.service.models.repository import Repository


def seen(root):
    return fingerprints_of(Repository([root]).model("m"))


def write(path, text="model"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def model(tmp_path):
    write(tmp_path / "m" / "1" / "model.onnx")
    write(tmp_path / "m" / "config.pbtxt", "max_batch_size: 1")
    return tmp_path / "m"


def changed(before, after):
    return {number for number in before | after if before.get(number) != after.get(number)}


def test_what_does_not_change_stays_the_same(model):
    assert seen(model.parent) == seen(model.parent)


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_seen(model):
    before, old = seen(model.parent), model / "1" / "model.onnx"
    new = write(model.parent / "new", "MODEL")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    new.replace(old)
    assert changed(before, seen(model.parent)) == {"1"}


def test_a_file_rewritten_in_place_with_the_same_size_and_time_is_seen(model):
    file = model / "1" / "model.onnx"
    before, status = seen(model.parent), file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed(before, seen(model.parent)) == {"1"}


def test_a_file_behind_a_version_that_is_a_link_is_seen(model):
    target = write(model.parent / ".data" / "v2" / "model.onnx").parent
    (model / "2").symlink_to(target)
    before = seen(model.parent)
    assert set(before) == {"", "1", "2"}
    write(target / "model.onnx", "longer than before")
    assert changed(before, seen(model.parent)) == {"2"}


def test_a_link_that_is_swapped_is_seen_though_the_files_are_the_same(model):
    file = write(model.parent / ".data" / "a" / "model.onnx")
    (model.parent / ".data" / "b").mkdir()
    os.link(file, model.parent / ".data" / "b" / "model.onnx")
    (model / "2").symlink_to(model.parent / ".data" / "a")
    before = seen(model.parent)
    (model.parent / "next").symlink_to(model.parent / ".data" / "b")
    (model.parent / "next").replace(model / "2")
    assert changed(before, seen(model.parent)) == {"2"}


def test_a_configuration_that_is_a_link_is_followed(model):
    for name, size in (("a", 1), ("b", 2)):
        write(model.parent / ".data" / name, f"max_batch_size: {size}")
    (model / "config.pbtxt").unlink()
    (model / "config.pbtxt").symlink_to(model.parent / ".data" / "a")
    before = seen(model.parent)
    (model / "next").symlink_to(model.parent / ".data" / "b")
    (model / "next").replace(model / "config.pbtxt")
    swapped = seen(model.parent)
    assert changed(before, swapped) == {""}
    write(model.parent / ".data" / "b", "max_batch_size: 3")
    assert changed(swapped, seen(model.parent)) == {""}


def test_a_model_that_is_a_link_is_seen_when_it_is_swapped(model):
    root = model.parent
    (root / ".a").mkdir()
    model.rename(root / ".a" / "m")
    (root / ".b").mkdir()
    os.link(root / ".a" / "m" / "config.pbtxt", root / ".b" / "config.pbtxt")
    (root / "m").symlink_to(root / ".a" / "m")
    before = seen(root)
    (root / "next").symlink_to(root / ".b")
    (root / "next").replace(root / "m")
    assert "" in changed(before, seen(root))


def test_links_in_circles_and_to_nowhere_come_to_an_end(model):
    (model / "1" / "self").symlink_to("self")
    (model / "1" / "up").symlink_to(model)
    (model / "1" / "gone").symlink_to(model / "nowhere")
    (model / "up").symlink_to(model)
    before = seen(model.parent)
    write(model / "1" / "model.onnx", "other")
    assert "1" in changed(before, seen(model.parent))


def test_many_links_to_the_next_folder_are_not_many_ways(model):
    """Two links a level, 40 levels: 2^40 ways, and 40 folders."""
    for level in range(40):
        for link in ("a", "b"):
            folder = model / ".levels" / str(level)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to(model / ".levels" / str(level + 1))
    (model / ".levels" / "40").mkdir()
    assert seen(model.parent) == seen(model.parent)


def test_a_link_out_of_the_repository_is_not_followed(model, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (model / "1" / "out").symlink_to(outside)
    before = seen(model.parent)
    write(outside / "file")
    assert seen(model.parent) == before


def test_changes_are_told_by_version(model):
    write(model / "2" / "model.onnx")
    write(model / "labels.txt", "a")
    before = seen(model.parent)
    write(model / "2" / "weights" / "data")
    assert changed(before, seen(model.parent)) == {"2"}
    (model / "labels.txt").unlink()
    assert changed(before, seen(model.parent)) == {"", "2"}
