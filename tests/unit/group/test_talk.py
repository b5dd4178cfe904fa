"""Two ends of a talk in one event loop, over a real pair of sockets."""

import asyncio
import gc
import os
import resource
import socket
from pathlib import Path

import pytest

from forebay_server.service.group.messages import Health, Known, RpcCall
from forebay_server.service.group.talk import Talk
from tests.support.guard import HANG_GUARD_S


class End:
    """One end: the messages that it received, and a way to wait for them."""

    def __init__(self, connection):
        self.received = []
        self.descriptors = []
        self.has_ended = False
        self._changed = asyncio.Event()
        self.talk = Talk(connection, self._on_message, self._on_end)

    def _on_message(self, message, descriptors):
        self.received.append(message)
        self.descriptors.append(descriptors)
        self._changed.set()

    def _on_end(self):
        self.has_ended = True
        self._changed.set()

    async def until(self, is_so):
        async with asyncio.timeout(HANG_GUARD_S):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()


def in_loop(test):
    def run():
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


def pair():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return End(left), End(right)


@in_loop
async def test_messages_arrive_in_order_whatever_their_size():
    left, right = pair()
    sizes = [0, 1, 8, 1 << 10, 3 << 20, 5, 1 << 22, 1]
    sent = [RpcCall(index, "RepositoryModelLoad", os.urandom(size)) for index, size in enumerate(sizes)]
    for message in sent:
        left.talk.send(message)
    await right.until(lambda: len(right.received) == len(sent))
    assert right.received == sent
    left.talk.close()
    await right.until(lambda: right.has_ended)
    assert not right.talk.is_open


@in_loop
async def test_descriptors_come_with_their_message_and_stay_open_at_both_ends():
    left, right = pair()
    files = []
    for index in range(3):
        file = os.memfd_create(f"talk {index}")
        os.write(file, str(index).encode())
        left.talk.send(Health(f"model-{index}", is_serving=True), [file] * index)
        left.talk.send(Known({}))
        os.close(file)
    await right.until(lambda: len(right.received) == 6)
    assert [len(each) for each in right.descriptors] == [0, 0, 1, 0, 2, 0]
    for index, descriptors in enumerate(right.descriptors[::2]):
        for each in descriptors:
            files.append(os.pread(each, 8, 0))
            assert files[-1] == str(index).encode()
            os.close(each)
    left.talk.close()
    right.talk.close()


@in_loop
async def test_both_ends_talk_at_once():
    left, right = pair()
    for index in range(200):
        left.talk.send(RpcCall(index, "left", b"l" * 10_000))
        right.talk.send(RpcCall(index, "right", b"r" * 10_000))
    await left.until(lambda: len(left.received) == 200)
    await right.until(lambda: len(right.received) == 200)
    assert [message.id for message in left.received] == list(range(200))
    left.talk.close()
    right.talk.close()


@in_loop
async def test_what_is_sent_to_an_end_that_has_gone_is_lost_in_silence():
    left, right = pair()
    file = os.memfd_create("talk")
    left.talk.close()
    right.talk.send(Known({}), [file])
    await right.until(lambda: right.has_ended)
    right.talk.send(Known({}), [file])
    os.fstat(file)  # still ours
    os.close(file)


@in_loop
async def test_a_message_that_fails_ends_no_talk():
    left, right = pair()

    def fail(message, descriptors):
        right._on_message(message, descriptors)
        raise RuntimeError("a bug")

    right.talk._on_message = fail
    left.talk.send(Known({}))
    left.talk.send(Known({"a": frozenset()}))
    await right.until(lambda: len(right.received) == 2)
    left.talk.close()
    right.talk.close()


@in_loop
async def test_a_message_whose_files_are_lost_ends_the_talk_and_no_later_file_is_taken_for_one_of_them():
    gc.collect()  # sockets of tests before this one: no number below those of the files becomes free
    left, right = pair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    file, other = os.memfd_create("talk"), os.memfd_create("talk")
    left.talk.send(Health("first", is_serving=True), [file])
    left.talk.send(Health("second", is_serving=True), [other])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(file, other), hard))  # no more can be opened
    try:
        await right.until(lambda: right.has_ended or right.received)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert right.has_ended
    assert not right.received
    assert not right.talk.is_open
    await left.until(lambda: left.has_ended)
    os.close(file)
    os.close(other)


@in_loop
async def test_a_message_whose_files_cannot_be_duplicated_ends_the_talk():
    """Otherwise the other process would never have it, and both would go on."""
    gc.collect()
    left, right = pair()
    file = os.memfd_create("talk")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(file)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        left.talk.send(Health("model", is_serving=True), [file])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert left.has_ended
    assert not left.talk.is_open
    await right.until(lambda: right.has_ended)
    assert not right.received
    os.close(file)


@pytest.fixture(autouse=True)
def _no_file_is_left_open():
    yield
    # By name: other descriptors of the process belong to tests before this one, and go when they are collected.
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert not [link for link in links if "memfd:talk" in str(link)]


@in_loop
async def test_a_talk_is_behind_while_the_other_process_does_not_read():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    left = End(ours)
    left.talk.send(Health("small", is_serving=True))
    assert not left.talk.is_behind  # in the kernel's hands
    left.talk.send(RpcCall(1, "RepositoryModelLoad", bytes(4 << 20)))
    assert left.talk.is_behind
    right = End(theirs)
    await right.until(lambda: len(right.received) == 2)
    assert not left.talk.is_behind
    left.talk.close()
    right.talk.close()
