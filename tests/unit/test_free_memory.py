"""Memory goes back to the system once it has not been used for some looks, once, and not while it is in use."""

import subprocess
import sys

import pytest

from forebay_server.service.free_memory import LEAST_BYTES, NEVER_S, QUIET_LOOKS, FreeMemory
from forebay_server.service.tuning import allocated_bytes
from tests.support.guard import HANG_GUARD_S

MB = 1 << 20


class Machine:
    """A process in numbers: resident memory that is not allocated is returned, except a part that cannot be."""

    def __init__(self):
        self.allocated, self.idle, self.code, self.stays = 50 * MB, 0, 100 * MB, 0
        self.given_back = 0
        self.memory = FreeMemory(lambda: self.code + self.allocated + self.idle, lambda: self.allocated, self.give_back)

    def give_back(self):
        self.given_back += 1
        self.idle = self.stays

    def look(self, times=1):
        for _ in range(times):
            self.memory.look()


def test_what_a_burst_left_goes_back_once_it_has_been_quiet():
    machine = Machine()
    machine.look()
    machine.allocated += 400 * MB
    machine.look(20)
    assert machine.given_back == 0, "it is in use"
    machine.allocated -= 400 * MB
    machine.idle += 400 * MB
    machine.look(QUIET_LOOKS - 1)
    assert machine.given_back == 0
    machine.look()
    assert (machine.given_back, machine.idle) == (1, 0)
    machine.look(20)
    assert machine.given_back == 1


def test_what_is_used_now_and_then_stays():
    machine = Machine()
    machine.look()
    for _ in range(20):
        machine.idle = 400 * MB
        machine.look(QUIET_LOOKS - 1)
        machine.idle, machine.allocated = 0, machine.allocated + 400 * MB
        machine.look()
        machine.allocated -= 400 * MB
    assert machine.given_back == 0


def test_little_is_not_worth_it():
    machine = Machine()
    machine.look()
    machine.idle = LEAST_BYTES - 1
    machine.look(20)
    assert machine.given_back == 0


def test_what_cannot_be_given_back_is_not_tried_again_and_more_of_it_is():
    machine = Machine()
    machine.look()
    machine.idle = machine.stays = 200 * MB
    machine.look(50)
    assert machine.given_back == 1
    machine.idle += 100 * MB
    machine.look(QUIET_LOOKS)
    assert machine.given_back == 2


def test_where_the_allocator_says_nothing_nobody_looks_again():
    assert FreeMemory(lambda: 1, lambda: None, lambda: None).look() == NEVER_S


NUMBERS = """
import ctypes
from forebay_server.service.free_memory import resident_bytes
from forebay_server.service.tuning import allocated_bytes, give_free_memory_back

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
before = allocated_bytes()
blocks = [libc.malloc(100_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
in_use, filled = allocated_bytes(), resident_bytes()
for block in blocks:
    libc.free(block)
freed = allocated_bytes()
give_free_memory_back()
print(in_use - before, freed - before, filled - resident_bytes())
"""


def test_the_numbers_of_a_process():
    """One of its own: objects of other tests in this one's heap may keep pages from going back."""
    if allocated_bytes() is None:
        pytest.skip("libc has no mallinfo2")
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS], check=True, stdout=subprocess.PIPE, text=True, timeout=HANG_GUARD_S
    )
    in_use, freed, given_back = map(int, done.stdout.split())
    assert in_use >= 190 * MB
    assert freed < 50 * MB
    assert given_back >= 150 * MB
