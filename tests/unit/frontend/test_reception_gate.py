"""Single calls are let in while there is room for their messages, one of each connection always, the others in turn."""

import asyncio
import random

from forebay_server.service.frontend.reception.gate import ReceptionGate
from forebay_server.service.frontend.reception.reading import Account
from tests.support.loops import on_loop


def account(number=1, usual=10):
    return Account(f"ipv4:127.0.0.1:{number}", usual)


def test_as_many_as_there_is_room_for():
    gate, one = ReceptionGate(35), account()
    assert [gate.enter(one) for _ in range(4)] == [10, 10, 10, 0]
    gate.leave(one, 10, 10)
    assert gate.enter(one) == 10


def test_one_of_each_connection_always():
    gate, greedy = ReceptionGate(20), account()
    while gate.enter(greedy):
        pass
    for number in range(2, 10):
        other = account(number)
        assert gate.enter(other) == 10
        assert gate.enter(other) == 0


def test_small_messages_let_more_of_them_in():
    gate, one = ReceptionGate(40), account(usual=40)
    assert [gate.enter(one), gate.enter(one)] == [40, 0]
    gate.leave(one, 40, 5)
    assert one.usual_bytes == 20
    assert [gate.enter(one) for _ in range(3)] == [20, 20, 0]
    gate.leave(one, 20, 30)
    assert one.usual_bytes == 30


@on_loop
async def test_those_that_wait_come_in_turn_and_connections_take_turns():
    gate, greedy, modest = ReceptionGate(20), account(1), account(2)
    held = [gate.enter(greedy), gate.enter(greedy), gate.enter(modest)]
    came = []

    async def call(which, name):
        reserved = await gate.wait(which)
        came.append(name)
        return reserved

    calls = [asyncio.create_task(call(greedy, f"greedy {i}")) for i in range(3)]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(call(modest, "modest")))
    await asyncio.sleep(0)
    assert gate.waiting_count == 4
    gate.leave(greedy, held[0], None)  # 20 of 20 are still in use
    await asyncio.sleep(0)
    assert came == []
    gate.leave(modest, held[2], None)  # its next call is let in at once
    await asyncio.sleep(0)
    assert came == ["modest"]
    gate.leave(modest, await calls[3], None)
    await asyncio.sleep(0)
    assert came == ["modest", "greedy 0"]
    gate.leave(greedy, held[1], None)
    gate.leave(greedy, await calls[0], None)
    await asyncio.gather(*calls)
    assert came == ["modest", "greedy 0", "greedy 1", "greedy 2"]


@on_loop
async def test_a_call_that_is_given_up_while_it_waits_takes_nothing():
    gate, one = ReceptionGate(10), account()
    held = gate.enter(one)
    waiting = [asyncio.create_task(gate.wait(one)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    gate.leave(one, held, None)  # the second's turn, which is cancelled before it runs
    waiting[1].cancel()
    assert await waiting[2] == 10
    gate.leave(one, 10, None)
    assert gate.waiting_count == 0
    assert (gate._reserved_bytes, one.reserved) == (0, 0)


@on_loop
async def test_whatever_happens_room_is_kept_and_nobody_is_forgotten():
    rng = random.Random(3)  # noqa: S311 - not a secret
    gate, accounts = ReceptionGate(100), [account(number) for number in range(5)]
    largest = 40
    inside = 0

    async def call(which):
        nonlocal inside
        reserved = gate.enter(which) or await gate.wait(which)
        inside += 1
        assert gate._reserved_bytes <= 100 + len(accounts) * largest
        try:
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            gate.leave(which, reserved, rng.choice([None, 1, 10, largest]))

    calls = []
    for _ in range(2000):
        calls.append(asyncio.create_task(call(rng.choice(accounts))))
        if rng.random() < 0.2:
            rng.choice(calls).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    await asyncio.gather(*calls, return_exceptions=True)
    assert (inside, gate.waiting_count, gate._reserved_bytes) == (0, 0, 0)
    assert [each.reserved for each in accounts] == [0] * 5


@on_loop
async def test_a_strict_gate_lets_nobody_in_beyond_its_room_and_takes_every_message_for_the_largest():
    gate, one, other = ReceptionGate(20, is_strict=True), account(1), account(2)
    held = [gate.enter(one), gate.enter(one)]
    assert held == [10, 10]
    assert gate.enter(other) == 0
    waiting = asyncio.create_task(gate.wait(other))
    await asyncio.sleep(0)
    gate.leave(one, held[0], 1)  # a small message, whose call is not answered yet
    await asyncio.sleep(0)
    assert not waiting.done()
    assert one.usual_bytes == 10
    gate.forget(1)
    assert await waiting == 10
    gate.leave(one, held[1], None)
    gate.leave(other, 10, 10)
    assert gate.enter(one) == 10
    assert gate.enter(one) == 0
