"""The place of a unix socket: no file of another user is removed, and no other user can connect."""

import os
import socket
import stat

import pytest

from forebay_server.service.frontend.unix_socket import SocketPathError, socket_place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A short path, for a test's name of any length: sockets take 107 bytes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path.relative_to(tmp_path)


def bound(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    return listener


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_socket_and_its_new_folder_are_for_the_group_only(folder):
    path = folder / "run" / "forebay.sock"
    with socket_place(path):
        listener = bound(path)
    with listener:
        assert mode_of(path) == 0o660
        assert mode_of(path.parent) == 0o750


def test_a_folder_that_exists_keeps_its_mode(folder):
    (folder / "run").mkdir(mode=0o700)
    with socket_place(folder / "run" / "s"):
        pass
    assert mode_of(folder / "run") == 0o700


def test_umask_is_restored(folder):
    before = os.umask(0o022)
    os.umask(before)
    with socket_place(folder / "s"):
        pass
    assert os.umask(before) == before


def test_a_socket_that_nobody_listens_on_is_removed(folder):
    path = folder / "s"
    bound(path).close()
    with socket_place(path):
        assert not path.exists()


def test_a_socket_of_a_live_server_stays(folder):
    path = folder / "s"
    with bound(path) as listener:
        listener.listen()
        with pytest.raises(SocketPathError, match="a server answers there"), socket_place(path):
            pass
        assert path.exists()


def test_a_file_stays(folder):
    path = folder / "s"
    path.write_text("precious")
    with pytest.raises(SocketPathError, match="something else lies there"), socket_place(path):
        pass
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused(folder):
    with pytest.raises(SocketPathError, match="longer than 107 bytes"), socket_place(folder / ("x" * 108)):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(folder):
    (folder / "file").write_text("")
    with pytest.raises(SocketPathError, match="unix socket") as refused, socket_place(folder / "file" / "s"):
        pass
    assert "\n" not in str(refused.value)
