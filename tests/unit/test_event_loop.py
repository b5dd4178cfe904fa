"""The loop's idle callbacks: they run once at an idle moment, and on a busy loop after their time."""

import asyncio

from structlog.testing import capture_logs

from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.frontend.received import received_ns
from tests.support.clock import ManualClock

AN_HOUR_S = 3600.0


def run(main):
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        return runner.run(main())


def test_work_waits_until_the_loop_has_nothing_else_to_do():
    order = []

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def iteration(left):
            order.append(left)
            if left:
                loop.call_soon(iteration, left - 1)

        loop.call_when_idle(lambda: (order.append("idle"), done.set()), AN_HOUR_S)
        iteration(3)
        await done.wait()

    run(main)
    assert order == [3, 2, 1, 0, "idle"]


def test_a_loop_that_is_never_idle_runs_it_after_its_time():
    async def main():
        loop = asyncio.get_running_loop()
        ran = []
        loop.call_when_idle(lambda: ran.append(True), 0.0)
        iterations = 0
        while not ran:  # each iteration leaves a callback for the next one
            iterations += 1
            await asyncio.sleep(0)
        return iterations

    assert run(main) == 1


def test_the_time_counts_from_the_first_that_waits():
    async def main():
        loop, ran = asyncio.get_running_loop(), []
        loop.call_when_idle(lambda: ran.append("first"), 0.0)
        loop.call_when_idle(lambda: ran.append("second"), AN_HOUR_S)
        await asyncio.sleep(0)
        return ran

    assert run(main) == ["first", "second"]


def test_what_is_asked_for_twice_runs_once_and_may_be_asked_for_again():
    async def main():
        loop, ran, done = asyncio.get_running_loop(), [], asyncio.Event()

        def work():
            ran.append(len(ran))
            if len(ran) == 1:
                loop.call_when_idle(work, AN_HOUR_S)
            else:
                done.set()

        loop.call_when_idle(work, AN_HOUR_S)
        loop.call_when_idle(work, AN_HOUR_S)
        await done.wait()
        return ran

    assert run(main) == [0, 1]


def test_work_that_fails_is_logged_and_does_not_hold_up_what_is_behind_it():
    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def fail():
            raise RuntimeError("our bug")

        loop.call_when_idle(fail, AN_HOUR_S)
        loop.call_when_idle(done.set, AN_HOUR_S)
        await done.wait()

    with capture_logs() as logs:
        run(main)
    assert [line["log_level"] for line in logs] == ["error"]


class ManualLoop(ServingLoop):
    """A loop whose time only the test moves."""

    now_s = 0.0

    def time(self):
        return self.now_s


def test_what_a_turn_handles_has_waited_since_the_turn_before_it_began():
    waited = []

    async def main():
        loop = asyncio.get_running_loop()
        received, done = asyncio.Event(), asyncio.Event()

        async def reader():
            await received.wait()
            waited.append(received_ns(ManualClock(10_000_000_000)))
            done.set()

        reading = asyncio.create_task(reader())
        await asyncio.sleep(0)
        loop.now_s += 5.0
        await asyncio.sleep(0)
        received.set()  # in an iteration that began just now, as grpc.aio does with received data
        loop.now_s += 0.25  # other streams' work in the same iteration
        await done.wait()
        await reading

    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        runner.run(main())
    assert waited == [9_750_000_000]


def test_another_loop_does_not_say_how_long_anything_waited():
    async def main():
        return received_ns(ManualClock(7))

    assert asyncio.run(main()) == 7
