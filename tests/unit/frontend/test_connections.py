"""Which accepted socket a peer's name stands for, and whether it is still the same."""

import os
import socket
from dataclasses import replace

import pytest

from forebay_server.service.frontend.connections import Sockets, normal
from tests.support.connections import connection, name_of


def local_connections(peer):
    return Sockets().connections_of(peer)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_name_stands_for_the_connection_whose_peer_has_it(host):
    with connection(host) as (peer, accepted, client), connection(host):
        (found,) = local_connections(peer)
        assert found.descriptor == accepted.fileno()
        assert found.is_open
        assert client.getpeername() == accepted.getsockname()  # it is still ours


def test_ipv4_clients_of_a_socket_for_both_are_found():
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert [found.descriptor for found in local_connections(name_of(client))] == [accepted.fileno()]


def test_a_connection_ends_with_its_socket_though_the_descriptor_comes_again():
    with connection("127.0.0.1") as (peer, accepted, _):
        (found,) = local_connections(peer)
        descriptor = accepted.fileno()
        accepted.close()
        assert not found.is_open
        with connection("127.0.0.1"):  # its listener gets the lowest descriptor that is free
            assert os.fstat(descriptor)
            assert not found.is_open


def test_a_connection_that_was_reset_has_ended_before_it_is_closed_here():
    with connection("127.0.0.1") as (peer, accepted, client):
        (found,) = local_connections(peer)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)
        assert not found.is_open


def test_a_unix_name_stands_for_all_that_the_listener_accepted(tmp_path):
    path = str(tmp_path / "s")
    here, there = socket.socketpair()
    with here, there, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert local_connections("unix:") == frozenset()
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            accepted = []
            for client in (one, two):
                client.connect(path)
                accepted.append(listener.accept()[0])
            found = local_connections("unix:")
            assert {each.descriptor for each in found} == {each.fileno() for each in accepted}
            for each in accepted:
                each.close()
            assert not any(each.is_open for each in found)


@pytest.mark.parametrize(
    "peer", ["", "unknown", "ipv4:", "ipv4:127.0.0.1", "ipv4:x:y", "ipv6:%5B::1%5D:", "ipv4:1.2.3.4:5"]
)
def test_a_name_of_no_connection_stands_for_none(peer):
    assert local_connections(peer) == frozenset()


def test_a_peer_is_local_on_the_loopback_or_at_the_address_it_is_reached_by():
    with connection("127.0.0.1") as (peer, _, _):
        (found,) = local_connections(peer)

    def is_local(there, here):
        return replace(found, there=normal(*there), here=normal(*here)).is_local

    assert is_local(("127.0.0.1", 5), ("127.0.0.1", 8001))
    assert is_local(("192.168.1.2", 5), ("192.168.1.2", 8001))
    assert not is_local(("192.168.1.3", 5), ("192.168.1.2", 8001))
    assert not is_local(("::ffff:192.168.1.3", 5), ("::ffff:192.168.1.2", 8001))


def test_a_later_look_finds_what_has_come_and_not_what_has_gone():
    sockets = Sockets()
    with connection("127.0.0.1") as (peer, accepted, _):
        (found,) = sockets.connections_of(peer)
        assert sockets.connections_of(peer) == {found}
        accepted.close()
        assert sockets.connections_of(peer) == frozenset()
        with connection("127.0.0.1") as (other, accepted_later, _):
            (later,) = sockets.connections_of(other)
            assert later.descriptor == accepted_later.fileno()
            assert later != found


def test_the_user_of_a_unix_client_is_told(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            (found,) = local_connections("unix:")
            assert (found.uid, found.is_local) == (os.getuid(), True)


def test_idle_connections_of_an_address_see_the_end_and_busy_ones_go_on(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        path = str(tmp_path / "s")
        listener.bind(path)
        listener.listen()
        with (
            socket.create_server(("127.0.0.1", 0)) as mine,
            socket.create_connection(mine.getsockname()) as idle,
            socket.create_connection(mine.getsockname()) as busy,
            socket.create_connection(other.getsockname()) as foreign,
            socket.socket(socket.AF_UNIX) as unix,
        ):
            unix.connect(path)
            accepted = [each.accept()[0] for each in (mine, mine, other, listener)]
            accepted[0].sendall(b"answer")
            addresses = [f"127.0.0.1:{mine.getsockname()[1]}", f"unix:{path}"]
            meant = Sockets().accepted_on(addresses, but_of=[name_of(busy), "unix:"])
            assert [each.descriptor for each in meant] == [accepted[0].fileno()]
            for each in meant:
                each.say_no_more()
            assert (idle.recv(99), idle.recv(99)) == (b"answer", b"")
            for client, end in ((busy, accepted[1]), (foreign, accepted[2]), (unix, accepted[3])):
                end.sendall(b"more")
                assert client.recv(99) == b"more"
            both = Sockets().accepted_on(addresses, but_of=[])
            assert {each.descriptor for each in both} == {accepted[index].fileno() for index in (0, 1, 3)}
            for each in accepted:
                each.close()
