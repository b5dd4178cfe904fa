"""Either the lane or the former has the requests of a bound batch, never both and never neither."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.claim import Claim


def test_a_batch_that_has_started_is_not_taken_back():
    claim = Claim()
    assert claim.start()
    assert not claim.withdraw()
    assert claim.start()


def test_a_batch_that_was_taken_back_does_not_start():
    claim = Claim()
    assert claim.withdraw()
    assert not claim.hold()
    assert not claim.start()
    assert not claim.is_started


def test_a_batch_whose_upload_reads_its_requests_can_be_taken_back_only_afterwards():
    claim = Claim()
    assert claim.hold()
    assert not claim.withdraw()
    claim.let_go()
    assert claim.withdraw()


def test_an_upload_that_goes_on_after_the_call_keeps_the_batch():
    claim = Claim()
    assert claim.start()
    assert claim.hold()
    claim.let_go()
    assert not claim.withdraw()


@given(st.lists(st.sampled_from(["upload", "start", "withdraw"]), max_size=12))
def test_whatever_the_order_one_side_has_it_in_the_end(moves):
    claim, is_withdrawn = Claim(), False
    for move in moves:
        if move == "upload":
            assert claim.hold() is not is_withdrawn
            if not is_withdrawn:
                assert claim.withdraw() is False
                claim.let_go()
        elif move == "start":
            assert claim.start() is not is_withdrawn
        else:
            is_withdrawn = claim.withdraw() or is_withdrawn
        assert not (claim.is_started and is_withdrawn)


@pytest.mark.parametrize("starts_as", ["execution", "upload and execution"])
def test_of_two_threads_exactly_one_gets_the_batch(starts_as):
    rounds = 2_000
    claims = [Claim() for _ in range(rounds)]
    barrier = threading.Barrier(2)
    started, withdrawn = [False] * rounds, [False] * rounds

    def lane():
        for index, claim in enumerate(claims):
            barrier.wait(10.0)
            if starts_as != "execution" and claim.hold():
                claim.let_go()
            started[index] = claim.start()

    def former():
        for index, claim in enumerate(claims):
            barrier.wait(10.0)
            withdrawn[index] = claim.withdraw()

    threads = [threading.Thread(target=target) for target in (lane, former)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is not other for one, other in zip(started, withdrawn, strict=True))
    assert started == [claim.is_started for claim in claims]
