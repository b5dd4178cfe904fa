"""Which server gets a call: lists of addresses, records of names, the power of two choices, servers left out."""

import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forebay.addresses import (
    GOING_LEFT_OUT_S,
    LONGEST_LEFT_OUT_S,
    Address,
    Addresses,
    host_to_resolve,
    parse_addresses,
    records_of,
)

SECOND_NS = 1_000_000_000
A, B, C = Address("a:1"), Address("b:1"), Address("c:1")


def of(*addresses, draw=None):
    found = Addresses(draw or random.Random(1).random)  # noqa: S311
    found.replace(addresses)
    return found


def test_a_list_has_each_entry_once_and_names_those_given_twice():
    assert parse_addresses("b:1, a:1,unix:/run/c.sock,b:1,b:1") == (("b:1", "a:1", "unix:/run/c.sock"), ("b:1",))


@pytest.mark.parametrize("text", ["xds:///cameras", "dns:///cameras:8001", "unix-abstract:x", "[::1]:8001", "h:1"])
def test_a_single_address_stays_as_it_is(text):
    assert parse_addresses(text) == ((text,), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty entry"),
        ("a:1,,b:1", "'a:1,,b:1' has an empty entry"),
        ("a:1,b", "'b' is no address"),
        ("a:1,b:70000", "'b:70000' is no address; give a port from 1 to 65535"),
        ("unix:", "'unix:' is no address"),
        ("http://a:1", "'http://a:1' is no address"),
        ("a:1 b:1", "'a:1 b:1' is no address; give several servers with commas in between"),
        ("a:1; b:1", "'a:1; b:1' is no address; give several servers with commas in between"),
        ("::1:8001", "'::1:8001' is no address; give an IPv6 address in brackets, such as [::1]:8001"),
        ("::1", "'::1' is no address; give an IPv6 address in brackets, such as [::1]:8001"),
        ("fe80::1", "give an IPv6 address in brackets, such as [fe80::1]:8001"),
        ("a:b:1", "give host:port, such as 127.0.0.1:8001"),
    ],
)
def test_a_wrong_entry_is_named(text, words):
    with pytest.raises(ValueError, match=r"give (host:port|a:1, without http://|several|an IPv6|a port)") as caught:
        parse_addresses(text)
    assert words in str(caught.value)


@given(st.text(alphabet="ab1:,[]./ux-", max_size=30))
def test_any_text_is_a_list_or_refused_in_words(text):
    try:
        entries, repeated = parse_addresses(text)
    except ValueError as error:
        entries, repeated, words = (), (), str(error)
    else:
        words = ""
    assert bool(entries) != ("give " in words)
    assert len(set(entries)) == len(entries)
    assert set(repeated) <= set(entries)


def test_only_names_are_looked_up():
    entries = ["cameras.example:8001", "10.0.0.1:8001", "[fe80::1%eth0]:8001", "unix:/a.sock", "xds:///a"]
    assert [host_to_resolve(entry) for entry in entries] == [("cameras.example", 8001), None, None, None, None]


def infos(*hosts):
    """As getaddrinfo gives them, one for each host."""
    return [
        (socket.AF_INET6, 1, 6, "", (host, 8001, 0, 0)) if ":" in host else (socket.AF_INET, 1, 6, "", (host, 8001))
        for host in hosts
    ]


@pytest.mark.parametrize("hosts", [[], ["10.0.0.1"], ["::1", "127.0.0.1"], ["10.0.0.1", "10.0.0.1"]])
def test_a_name_of_one_server_is_left_to_grpc(hosts):
    assert records_of("name:8001", infos(*hosts)) == (Address("name:8001"),)


def test_each_record_of_a_name_is_a_server_that_keeps_the_name():
    found = records_of("name:8001", infos("10.0.0.1", "10.0.0.2", "fd00::1"))
    assert found == (Address("10.0.0.1:8001", "name:8001"), Address("10.0.0.2:8001", "name:8001"))
    assert records_of("name:8001", infos("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"))[0].target == "[fd00::1]:8001"


def test_thirty_streams_are_spread_evenly():
    addresses = of(A, B, C)
    for _ in range(30):
        addresses.choose(0)
    counts = [addresses._records[each].calls for each in (A, B, C)]
    assert sum(counts) == 30
    assert min(counts) >= 8
    assert max(counts) <= 12


def test_a_server_that_failed_is_left_out_and_comes_back():
    addresses = of(A, B)
    left_out_s = addresses.failed(A, 0)
    assert 0.5 <= left_out_s <= 1.0
    assert {addresses.choose(1) for _ in range(20)} == {B}
    assert A in {addresses.choose(round(left_out_s * SECOND_NS)) for _ in range(20)}


def test_a_server_that_dies_with_many_streams_has_failed_once():
    addresses = of(A, B, draw=lambda: 1.0)
    assert [addresses.failed(A, now_ns) for now_ns in range(10)] == [1.0, *[0.0] * 9]


def test_each_failure_doubles_the_time_up_to_a_limit_until_a_stream_opens():
    addresses = of(A, B, draw=lambda: 1.0)
    times = [addresses.failed(A, index * 100 * SECOND_NS) for index in range(6)]
    assert times == [1.0, 2.0, 4.0, 8.0, LONGEST_LEFT_OUT_S, LONGEST_LEFT_OUT_S]
    addresses.opened(A)
    assert addresses.failed(A, 1000 * SECOND_NS) == 1.0


def test_a_server_is_left_out_for_as_long_as_it_advises():
    assert of(A, B).failed(A, 0, hint_ms=30_000) == 30.0


def test_a_server_that_goes_away_is_left_out():
    addresses = of(A, B)
    assert addresses.going(A, 0) == GOING_LEFT_OUT_S
    assert addresses.going(A, 1) == 0.0
    assert {addresses.choose(2) for _ in range(20)} == {B}


def test_where_all_are_left_out_any_is_taken():
    addresses = of(A, B)
    addresses.failed(A, 0)
    addresses.going(B, 0)
    assert not addresses.has_ready(1)
    assert {addresses.choose(1) for _ in range(20)} == {A, B}


def test_a_server_to_avoid_is_taken_only_if_it_is_the_only_one():
    assert {of(A, B, draw=lambda: 0.0).choose(0, avoid={A}) for _ in range(20)} == {B}
    assert of(A).choose(0, avoid={A}) == A


def test_records_that_go_and_come_keep_their_calls():
    addresses = of(A, B)
    addresses.failed(B, 0)
    address = addresses.choose(0)
    addresses.replace([C])
    assert addresses.is_known(address)
    assert addresses.choose(0) == C
    addresses.ended(address)
    assert not addresses.is_known(A)
    addresses.opened(A)  # of a server that is gone: no effect
    assert addresses.failed(A, 0) == 0.0


class Choices(RuleBasedStateMachine):
    """Any order of calls, ends, failures and changes of the list, against a plain account."""

    def __init__(self):
        super().__init__()
        self.now_ns = 0
        self.addresses = of(A, B, C)
        self.listed = {A, B, C}
        self.open = []
        self.left_out_until_ns = {}

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds):
        self.now_ns += round(seconds * SECOND_NS)

    @rule(avoid=st.sets(st.sampled_from([A, B, C])))
    def choose(self, avoid):
        ready = {each for each in self.listed - avoid if self.now_ns >= self.left_out_until_ns.get(each, 0)}
        assert self.addresses.has_ready(self.now_ns, avoid) == bool(ready)
        counts = {each: self.open.count(each) for each in ready}
        chosen = self.addresses.choose(self.now_ns, avoid)
        self.open.append(chosen)
        assert chosen in (ready or self.listed - avoid or self.listed)
        if len(ready) > 1 and counts[chosen] == max(counts.values()):  # the fullest wins only against its equals
            assert list(counts.values()).count(counts[chosen]) > 1

    @rule(data=st.data())
    def end(self, data):
        if self.open:
            address = data.draw(st.sampled_from(self.open))
            self.open.remove(address)
            self.addresses.ended(address)

    @rule(address=st.sampled_from([A, B, C]), hint_ms=st.sampled_from([0, 3000]))
    def fail(self, address, hint_ms):
        seconds = self.addresses.failed(address, self.now_ns, hint_ms)
        if seconds:
            assert seconds <= max(LONGEST_LEFT_OUT_S, hint_ms / 1e3)
            self.left_out_until_ns[address] = self.now_ns + round(seconds * SECOND_NS)

    @rule(address=st.sampled_from([A, B, C]))
    def succeed(self, address):
        self.addresses.opened(address)
        self.left_out_until_ns.pop(address, None)

    @rule(listed=st.sets(st.sampled_from([A, B, C]), min_size=1))
    def replace(self, listed):
        self.addresses.replace(sorted(listed, key=str))
        self.listed = listed
        for address in {A, B, C} - listed - set(self.open):
            self.left_out_until_ns.pop(address, None)

    @invariant()
    def counts_are_those_of_the_open_calls(self):
        for address in (A, B, C):
            record = self.addresses._records.get(address)
            assert (record.calls if record else 0) == self.open.count(address)
            assert (record is not None) == (address in self.listed or address in self.open)


TestChoices = Choices.TestCase
