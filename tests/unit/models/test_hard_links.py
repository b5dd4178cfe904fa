"""Files of other users do not get into a model by a hard link; hard links of one's own do."""

import os
import stat

import pytest

from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file
from forebay_server.service.models.hard_links import is_foreign
from forebay_server.service.models.repository import Repository, RepositoryError
from tests.support import models

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files to others")


def status(*, links=1, uid=1000, kind=stat.S_IFREG):
    return os.stat_result((kind | 0o600, 1, 1, links, uid, 1000, 4, 0, 0, 0))


FOLDER = status(kind=stat.S_IFDIR, links=2)


def test_only_a_file_with_several_names_and_another_owner_is_foreign():
    assert is_foreign(status(links=2, uid=0), FOLDER)
    assert not is_foreign(status(links=1, uid=0), FOLDER)  # a copy that another user put there
    assert not is_foreign(status(links=2), FOLDER)  # a package manager's, a deduplicating store's
    assert not is_foreign(status(links=2, uid=0, kind=stat.S_IFDIR), FOLDER)


@pytest.fixture
def model(tmp_path):
    """A model with weights beside it, configuration and labels; and a secret."""
    root = tmp_path / "models"
    models.save(models.add_sub(), root / "m" / "1" / "model.onnx")
    (root / "m" / "config.pbtxt").write_text('output { name: "OUTPUT0" label_filename: "labels.txt" }')
    (tmp_path / "secret").write_text("s3cret")
    os.link(tmp_path / "secret", root / "m" / "labels.txt")
    os.link(tmp_path / "secret", root / "m" / "1" / "weights.bin")
    return tmp_path


def look(root):
    entry = Repository([root / "models"]).model("m")
    model_file(entry, 1, describe(entry))


def test_hard_links_of_the_owner_of_the_folder_are_taken(model):
    look(model)


@needs_root
@pytest.mark.parametrize("name", ["labels.txt", "1/weights.bin", "1/model.onnx"])
def test_a_hard_link_to_a_file_of_another_user_is_refused(model, name):
    folder = model / "models" / "m"
    for path in (folder / "labels.txt", folder / "1" / "weights.bin"):
        path.unlink()
        path.write_text("")
    os.chown(model / "secret", NOBODY, NOBODY)
    (folder / name).unlink()
    os.link(model / "secret", folder / name)
    with pytest.raises(RepositoryError, match=f"^m/{name}: a hard link to a file of another user: put a copy"):
        look(model)
