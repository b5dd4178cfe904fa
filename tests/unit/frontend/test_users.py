"""The user of a socket, and a user's rights to a file."""

import os
import socket
import struct
import uuid
from pathlib import Path

import pytest

from forebay_server.service.frontend.connections import Sockets, normal
from forebay_server.service.frontend.memory import users
from forebay_server.service.frontend.memory.users import READ_WRITE, SEARCH, has_access_list, known, may, user_of_tcp
from tests.support.connections import connection

SHM = Path("/dev/shm")  # noqa: S108 - access lists need a file system that has them
ME, OTHER, GROUP, OTHER_GROUP = 2000, 3000, 2500, 3500


def status(mode, uid=OTHER, gid=OTHER_GROUP):
    return os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


@pytest.fixture(autouse=True)
def groups(monkeypatch):
    """ME is a member of GROUP; of no other user anything is known."""
    monkeypatch.setattr(users, "_groups_of", {ME: frozenset({ME, GROUP})}.get)


@pytest.mark.parametrize(
    ("uid", "file", "is_let"),
    [
        (ME, status(0o600, uid=ME), True),
        (ME, status(0o400, uid=ME), False),
        (ME, status(0o466, uid=ME, gid=GROUP), False),  # the owner has the owner's rights only
        (ME, status(0o660, gid=GROUP), True),
        (ME, status(0o640, gid=GROUP), False),
        (ME, status(0o606, gid=GROUP), False),  # a member has the group's rights only
        (ME, status(0o660), False),
        (ME, status(0o606), True),
        (ME, status(0o666), True),
        (ME, status(0o602), False),
        (OTHER + 1, status(0o666), True),
        (OTHER + 1, status(0o606), False),  # it may be a member
        (OTHER + 1, status(0o660), False),  # or not
        (0, status(0), True),
    ],
)
def test_rights_are_those_that_the_kernel_gives(uid, file, is_let):
    assert may(uid, READ_WRITE, file) is is_let


def test_a_folder_must_be_one_that_can_be_searched():
    assert may(ME, SEARCH, status(0o1777))
    assert not may(ME, SEARCH, status(0o1770))


def test_an_access_list_leaves_the_owners_rights_only():
    assert may(ME, READ_WRITE, status(0o666, uid=ME), has_access_list=True)
    assert not may(ME, READ_WRITE, status(0o666, gid=GROUP), has_access_list=True)
    assert may(0, READ_WRITE, status(0o600), has_access_list=True)


def test_access_lists_are_seen():
    path = SHM / f"forebay-test-{uuid.uuid4().hex}"
    path.touch()
    try:
        assert not has_access_list(str(path))
        # Owner rw, user 54321 nothing, group and mask rw, others rw: acl(5) as the kernel stores it.
        entries = ((1, 6, -1), (2, 0, 54321), (4, 6, -1), (16, 6, -1), (32, 6, -1))
        data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        try:
            os.setxattr(path, "system.posix_acl_access", data)
        except OSError:
            pytest.skip("this file system has no access lists")
        assert has_access_list(str(path))
    finally:
        path.unlink()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_the_user_of_a_tcp_client_is_told(host):
    with connection(host) as (peer, _, client):
        (found,) = Sockets().connections_of(peer)
        assert user_of_tcp(found.there, found.here) == os.getuid()
        assert normal(*client.getsockname()[:2]) == found.there


@pytest.mark.parametrize("client_host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_the_user_of_an_ipv4_client_of_a_socket_for_both_is_told(client_host):
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection((client_host, listener.getsockname()[1])) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            there, here = normal(*client.getsockname()[:2]), normal(*client.getpeername()[:2])
            assert user_of_tcp(there, here) == os.getuid()


def test_a_socket_that_nobody_has_any_more_has_no_user():
    with connection("127.0.0.1") as (peer, _, client):
        (found,) = Sockets().connections_of(peer)
        client.close()  # the kernel keeps it for a while, without an inode, as root's
        assert user_of_tcp(found.there, found.here) is None
    assert user_of_tcp(normal("127.0.0.1", 1), normal("127.0.0.1", 2)) is None


def test_a_number_that_stands_for_all_foreign_users_is_nobodys(monkeypatch):
    monkeypatch.setattr(users, "_number_of_the_unknown", lambda: 65534)
    assert known(65534) is None
    assert known(1000) == 1000
