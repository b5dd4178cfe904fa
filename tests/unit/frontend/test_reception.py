"""The bytes of a connection in reception, from received bytes and messages; and the connections that are ended."""

import random

from forebay_server.service.frontend.reception.reading import Account, Reading, heaviest

MB, S = 1 << 20, 1_000_000_000
LARGEST, WINDOW = 16 * MB, 1 << 17
PEER = "ipv4:127.0.0.1:5000"


class Wire:
    """One connection: its sent bytes, and checks of it, a tenth of a second apart."""

    def __init__(self):
        self.account = Account(PEER, LARGEST)
        self.received, self.now_ns = 0, 0

    def open(self):
        reading = Reading(self.account)
        reading.is_reading = True
        self.account.begin(reading)
        self.look()
        return reading

    def look(self, times=1):
        for _ in range(times):
            self.now_ns += S // 10
            for reading in self.account.calls:
                if reading.brought_bytes < 0:
                    reading.brought_bytes = self.account.tally.received_bytes
            self.account.tally.note(self.account, self.received, LARGEST, WINDOW, self.now_ns)

    def deliver(self, nbytes, overhead=0):
        self.received += nbytes + overhead
        self.account.take(nbytes)

    @property
    def held(self):
        return self.account.tally.held_bytes


def test_what_became_no_message_is_held_and_what_did_is_not():
    wire = Wire()
    wire.open()
    wire.received += 5 * MB
    wire.look()
    assert 5 * MB - 5000 < wire.held <= 5 * MB
    wire.account.take(5 * MB)
    wire.look()
    assert wire.held == 0


def test_headers_and_pings_of_an_honest_client_never_add_up():
    rng = random.Random(7)  # noqa: S311 - not a secret
    wire = Wire()
    wire.open()
    for _ in range(2_000):
        for _ in range(rng.randrange(5)):
            size = rng.choice([20, 1000, 150_000])
            wire.deliver(size, overhead=100 + size // 100)
        wire.received += 12  # pings
        wire.look()
    assert (wire.held, wire.account.tally.most_bytes) == (0, 0)


def test_what_was_given_up_is_gone_whatever_came_of_it():
    wire = Wire()
    wire.open()
    for _ in range(50):
        reading = wire.open()
        wire.received += 3 * MB
        wire.look(3)
        assert wire.held > 2 * MB
        wire.account.end(reading)
        wire.look()
        assert wire.held == 0


def test_what_a_far_client_sends_before_it_sees_that_its_call_has_ended_is_gone_as_well():
    wire = Wire()
    wire.open()
    for _ in range(50):
        reading = wire.open()
        wire.received += WINDOW // 2
        wire.account.end(reading)
        wire.look()
        wire.received += WINDOW // 2
        wire.look()
        assert wire.held == 0
    wire.received += WINDOW
    wire.look()
    assert wire.held > WINDOW // 2


def test_a_call_holds_no_more_than_came_since_it_began():
    wire = Wire()
    wire.received += 30 * MB  # of an unknown connection
    wire.look()
    wire.open()
    wire.received += MB
    wire.look()
    assert wire.account.tally.most_bytes <= MB + 100
    wire.received += 100 * MB
    wire.look()
    assert wire.account.tally.most_bytes == LARGEST + WINDOW


def test_somebody_who_hides_what_is_held_behind_calls_that_are_given_up_is_found_by_the_other_number():
    wire = Wire()
    wire.open()
    for _ in range(10):
        decoy = wire.open()
        wire.received += MB
        wire.look()
        wire.account.end(decoy)
        wire.look()
    assert wire.held == 0
    assert wire.account.tally.most_bytes > 9 * MB  # except for the allowance of each call


def test_where_the_kernel_counts_nothing_ended_calls_are_not_kept():
    account = Account("unix:", LARGEST)
    for _ in range(10):
        reading = Reading(account)
        account.begin(reading)
        account.end(reading)
    assert account.abandoned == []


def test_a_connection_without_calls_holds_nothing():
    wire = Wire()
    reading = wire.open()
    wire.received += MB
    wire.look()
    wire.account.end(reading)
    wire.look()
    assert (wire.held, wire.account.tally.most_bytes) == (0, 0)


def test_a_later_connection_by_the_same_name_begins_anew():
    wire = Wire()
    wire.open()
    wire.deliver(10 * MB)
    wire.look()
    wire.received = 2 * MB
    wire.look()
    assert 2 * MB - 10_000 < wire.held <= 2 * MB


def test_what_is_stuck_is_so_since_it_came():
    wire = Wire()
    wire.open()
    wire.look(50)
    assert wire.account.tally.stuck_ns == 0
    wire.received += 60_000
    wire.look()
    began_ns = wire.now_ns
    for _ in range(30):
        assert wire.account.tally.stuck_ns == wire.now_ns - began_ns
        wire.received += 5_000  # it trickles on
        wire.look()


def test_a_connection_that_brings_messages_is_never_stuck_however_much_is_under_way():
    """An idle stream beside a busy one: at every look something is half here, never the same."""
    wire = Wire()
    wire.open()
    half = 300_000
    wire.received += half
    for _ in range(1000):
        wire.deliver(600_000, overhead=18_192)  # all that is allowed
        wire.look()
        assert wire.held > 250_000
        assert wire.account.tally.stuck_ns <= S


def test_what_waits_because_nobody_reads_is_not_stuck():
    wire = Wire()
    reading = wire.open()
    reading.is_reading = False
    wire.received += WINDOW
    wire.look(50)
    assert wire.account.tally.stuck_ns == 0
    assert wire.account.tally.own_bytes == 0
    reading.is_reading = True
    wire.look(2)
    assert wire.account.tally.stuck_ns == S // 10


def test_little_may_be_headers():
    wire = Wire()
    wire.open()
    wire.received += 16_000
    wire.look(50)
    assert wire.account.tally.stuck_ns == 0


def holding(nbytes, stuck_ns):
    account = Account(PEER, LARGEST)
    account.tally.held_bytes, account.tally.stuck_ns = nbytes, stuck_ns
    return account


def test_those_who_held_most_for_longest_go_until_three_quarters_are_left():
    old, young, small = holding(40, 400), holding(60, 6), holding(10, 1)

    def chosen(budget):
        return heaviest([small, young, old], budget, lambda a: a.tally.held_bytes, lambda a: a.tally.burden)

    assert chosen(110) == []
    assert chosen(109) == [old]
    assert chosen(60) == [old, young]
    assert chosen(1) == [old, young, small]
