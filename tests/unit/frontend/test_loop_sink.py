"""The way back to the loop: one wake-up for all that wait, nothing lost, nothing raised at those who post."""

import asyncio
import threading
from types import SimpleNamespace

from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.frontend import loop_sink
from forebay_server.service.frontend.loop_sink import LoopSink
from tests.support.guard import HANG_GUARD_S


class CountingLoop:
    """The part of an event loop that the sink uses, turned by hand."""

    def __init__(self) -> None:
        self.calls = []
        self.wake_ups = 0

    def time(self):
        return 0.0

    def call_soon(self, function):
        self.calls.append(function)

    def call_soon_threadsafe(self, function):
        self.wake_ups += 1
        self.calls.append(function)

    def iteration(self):
        calls, self.calls = self.calls, []
        for function in calls:
            function()


def completion(on_completion):
    return SimpleNamespace(request=SimpleNamespace(on_completion=on_completion))


def test_posts_before_the_loops_turn_share_one_wake_up_and_keep_their_order():
    loop, got = CountingLoop(), []
    sink = LoopSink(loop)
    posted = [completion(got.append) for _ in range(5)]
    sink.post(posted[:2])
    sink.post([])
    sink.post(posted[2:])
    assert loop.wake_ups == 1
    loop.iteration()
    assert got == posted
    sink.post([posted[0]])
    assert loop.wake_ups == 2
    loop.iteration()
    assert len(got) == 6


def test_a_completion_posted_while_the_loop_drains_is_not_left_behind():
    loop, got = CountingLoop(), []
    sink = LoopSink(loop)
    second = completion(got.append)
    first = completion(lambda _: sink.post([second]))
    sink.post([first])
    loop.iteration()
    loop.iteration()
    assert got == [second]


def test_a_completion_that_fails_does_not_hold_up_those_behind_it():
    loop, got = CountingLoop(), []
    sink = LoopSink(loop)

    def fail(_):
        raise ZeroDivisionError

    sink.post([completion(fail), completion(got.append)])
    loop.iteration()
    assert len(got) == 1


def test_nothing_is_lost_when_threads_post_while_the_loop_drains():
    threads, each = 4, 500
    seen = {number: [] for number in range(threads)}

    async def run():
        loop = asyncio.get_running_loop()
        sink = LoopSink(loop)
        all_seen = asyncio.Event()
        left = [threads * each]

        def take(thread, item):
            seen[thread].append(item)
            left[0] -= 1
            if not left[0]:
                all_seen.set()

        def post(thread):
            for start in range(0, each, 5):
                batch = range(start, start + 5)
                sink.post([completion(lambda _, i=i: take(thread, i)) for i in batch])

        posters = [threading.Thread(target=post, args=(number,)) for number in range(threads)]
        for thread in posters:
            thread.start()
        await asyncio.wait_for(all_seen.wait(), HANG_GUARD_S)
        for thread in posters:
            thread.join(HANG_GUARD_S)

    asyncio.run(run())
    assert all(items == list(range(each)) for items in seen.values())


def test_posting_after_the_loop_has_closed_is_harmless():
    async def make():
        return LoopSink(asyncio.get_running_loop())

    sink = asyncio.run(make())
    got = []
    sink.post([completion(got.append)])
    sink.post([completion(got.append)])
    assert got == []


def test_steps_run_once_each_at_the_end_of_the_turn_and_what_they_end_is_told_without_a_wake_up():
    loop, got, stepped = CountingLoop(), [], []
    sink = LoopSink(loop)
    ended = [completion(got.append) for _ in range(2)]

    def first():
        stepped.append("first")
        sink.post([ended[0]])

    def second():
        stepped.append("second")
        sink.post([ended[1]])

    for step in (first, second, first):
        sink.step_when_idle(step)
    assert not stepped
    loop.iteration()
    assert stepped == ["first", "second"]
    assert got == ended
    assert loop.wake_ups == 0
    sink.post([ended[0]])
    assert loop.wake_ups == 1


def test_a_serving_loop_steps_when_it_has_nothing_else_to_do(monkeypatch):
    monkeypatch.setattr(loop_sink, "LEAST_GATHERING_S", 3600.0)  # else five iterations may take longer
    monkeypatch.setattr(loop_sink, "LONGEST_GATHERING_S", 3600.0)
    iterations, stepped = [], []

    async def main():
        loop = asyncio.get_running_loop()
        sink, done = LoopSink(loop), asyncio.Event()

        def read():
            iterations.append(len(iterations))
            sink.step_when_idle(step)
            if len(iterations) < 5:
                loop.call_soon(read)

        def step():
            stepped.append(len(iterations))
            done.set()

        read()
        await done.wait()

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(main())
    assert stepped == [5]
