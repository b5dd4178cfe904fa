"""Who may be asking, and who is still there."""

import os
import socket

import pytest

from forebay_server.service.frontend.connections import Connection
from forebay_server.service.frontend.memory import askers
from forebay_server.service.frontend.memory.askers import Askers
from tests.support.connections import connection, name_of

ME = frozenset({os.getuid()})


def unix(uid):
    return Connection(socket.AF_UNIX, 0, 0, uid, "/s", uid=uid)


def test_a_tcp_peer_is_one_user_for_as_long_as_it_is_there():
    known = Askers()
    with connection("127.0.0.1") as (peer, accepted, _):
        asker = known.get(peer)
        assert (asker.users, known.get(peer)) == (ME, asker)
        assert known.present() == ME
        accepted.close()
        assert known.get(peer).users == frozenset()
        assert known.present() == frozenset()


def test_a_peer_that_nobody_has_heard_of_is_nobody():
    assert Askers().get("ipv4:192.0.2.1:5000").users == frozenset()


@pytest.mark.parametrize(
    ("connected", "who"), [((5,), {5}), ((5, 5), {5}), ((5, 6), {5, 6}), ((5, 0), {5}), ((0,), {0}), ((), set())]
)
def test_at_the_unix_socket_everybody_who_is_connected_may_be_asking(connected, who):
    assert askers._users_of(frozenset(unix(uid) for uid in connected)) == who


def test_a_user_that_cannot_be_named_makes_all_of_them_nobody(monkeypatch):
    monkeypatch.setattr(askers, "known", lambda uid: None if uid == 65534 else uid)
    assert askers._users_of(frozenset({unix(5), unix(65534)})) == set()


def test_whoever_comes_to_the_unix_socket_is_seen_by_the_next_request(tmp_path):
    known = Askers()
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        assert known.get("unix:").connections == frozenset()
        client.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            asker = known.get("unix:")
            assert (asker.users, len(asker.connections)) == (ME, 1)
            with socket.socket(socket.AF_UNIX) as second:
                second.connect(path)
                again, _ = listener.accept()
                with again:
                    assert known.get("unix:") is asker
                    assert len(asker.connections) == 2
        assert known.present() == frozenset()


def test_a_second_connection_with_the_name_of_the_first_is_seen_by_the_next_request(monkeypatch):
    """Two processes have one port, each connected to another address of a server that listens at all of them."""
    monkeypatch.setattr(askers, "user_of_tcp", lambda _, here: {"127.0.0.1": 5, "127.0.0.2": 6}[str(here[0])])
    known = Askers()
    with socket.create_server(("0.0.0.0", 0)) as listener, socket.socket() as first, socket.socket() as second:  # noqa: S104
        port = listener.getsockname()[1]
        for client in (first, second):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        first.connect(("127.0.0.1", port))
        with listener.accept()[0]:
            peer = name_of(first)
            asker = known.get(peer)
            assert asker.users == {5}
            second.bind(first.getsockname())
            second.connect(("127.0.0.2", port))
            with listener.accept()[0]:
                assert name_of(second) == peer
                assert known.get(peer) is asker
                assert asker.users == {5, 6}
            assert known.get(peer).users == {5}
