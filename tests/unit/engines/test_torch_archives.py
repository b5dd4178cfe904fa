"""PyTorch archives are looked at before PyTorch reads them. No PyTorch is needed for that."""

import struct
import zipfile

import pytest

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.pytorch import archive
from forebay_server.engines.pytorch.archive import Archive


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in members:
            target.writestr(name, data)
    return path


def problem(path):
    with pytest.raises(ModelFileError) as caught:
        Archive(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt2"


WHOLE = [("m/version", b"1"), ("m/data/0", bytes(1000))]


def test_members_are_named_without_their_common_folder(path):
    write(path, WHOLE)
    with Archive(path) as opened:
        assert opened.names == ["version", "data/0"]
        assert opened.read("data/0") == bytes(1000)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(path, data):
    path.write_bytes(data)
    assert problem(path).startswith(("not a PyTorch archive", "0 members"))


def test_a_truncated_archive_is_refused(path):
    path.write_bytes(write(path, WHOLE).read_bytes()[:-30])
    assert problem(path).startswith("not a PyTorch archive")


def test_source_code_may_be_compressed_and_a_bomb_may_not_unfold(path, monkeypatch):
    write(path, [("m/code/m.py", b"x" * 100_000)], zipfile.ZIP_DEFLATED)
    with Archive(path) as opened:
        assert len(opened.read("code/m.py")) == 100_000
    monkeypatch.setattr(archive, "MOST_COMPRESSED_BYTES", 1 << 20)
    write(path, [(f"m/data/{index}", bytes(600_000)) for index in range(2)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    assert problem(path).startswith("unfolds to 1 MiB, of which at most 1 are taken")


def test_names_that_differ_in_case_only_are_one_name(path):
    write(path, [("m/models/model.json", b"looked at"), ("m/Models/model.json", b"loaded")])
    assert problem(path) == "two members of the same name"


@pytest.mark.parametrize(
    "name", ["other/version", "version", "m/../version", "m//version", "m/a\\b", "m/\xfc", "m/a\nb"]
)
def test_members_lie_in_one_folder_under_plain_names(path, name):
    write(path, [*WHOLE, (name, b"")])
    assert problem(path) == "members outside the archive's own folder"


def test_nothing_lies_before_or_after_the_archive(path):
    data = write(path, WHOLE).read_bytes()
    path.write_bytes(b"#!/bin/sh\n" + data)
    assert "something before them" in problem(path)
    path.write_bytes(data[:-2] + struct.pack("<H", 5) + b"hello")
    assert "something follows" in problem(path)


def test_members_do_not_share_their_bytes(path):
    """As in zip bombs that need no compression of compression: a thousand members, one kernel of data."""
    data = bytearray(write(path, [("m/a", bytes(100)), ("m/b", bytes(100))]).read_bytes())
    second = data.rfind(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)  # the second one's header is the first one's
    path.write_bytes(data)
    assert "overlap" in problem(path)


def test_a_stored_member_has_one_size(path):
    data = bytearray(write(path, WHOLE).read_bytes())
    entry = data.find(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1 << 30)
    path.write_bytes(data)
    assert problem(path) == "m/version has two sizes"


def test_other_compressions_are_refused(path):
    write(path, WHOLE, zipfile.ZIP_BZIP2)
    assert problem(path) == "m/version is encrypted, or compressed as PyTorch does not"


def test_too_many_members_are_refused(path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_MEMBERS", 1)
    assert problem(write(path, WHOLE)) == "2 members, but a model has 1 to 1"


def test_a_damaged_member_is_an_error(path):
    data = bytearray(write(path, WHOLE).read_bytes())
    data[data.find(bytes(1000))] = 1
    path.write_bytes(data)
    with Archive(path) as opened, pytest.raises(ModelFileError, match="data/0 cannot be read: Bad CRC"):
        opened.read("data/0")
