"""The loop of `forebay stream` asks the kernel when it would wait, and after a few turns in any case."""

import asyncio
import socket

from forebay_server.service.cli.stream_loop import MOST_TURNS, PatientSelector, stream_loop


def test_turns_that_do_not_wait_ask_only_now_and_then():
    here, there = socket.socketpair()
    with here, there, PatientSelector() as selector:
        selector.register(here, 1)
        there.send(b"x")
        assert [len(selector.select(0)) for _ in range(MOST_TURNS + 2)] == [0] * MOST_TURNS + [1, 0]


def test_a_turn_that_waits_asks():
    here, there = socket.socketpair()
    with here, there, PatientSelector() as selector:
        selector.register(here, 1)
        there.send(b"x")
        assert len(selector.select(None)) == len(selector.select(0.1)) == 1


def test_work_without_an_end_keeps_the_loop_from_no_socket():
    async def read():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            reading = asyncio.create_task(loop.sock_recv(here, 1))
            await asyncio.sleep(0)
            there.send(b"x")
            while not reading.done():
                await asyncio.sleep(0)
            return reading.result()

    with asyncio.Runner(loop_factory=stream_loop) as runner:
        assert runner.run(read()) == b"x"
