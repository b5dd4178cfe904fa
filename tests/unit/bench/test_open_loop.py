"""The open loop counts from the due time of a frame; a missing answer is infinitely late."""

import asyncio
import math

from forebay_server.bench import open_loop
from forebay_server.bench.open_loop import FIRST_SHARE, _Run


def run_of(monkeypatch, took_s, spacing_s=0.01):
    """A run whose frames were answered `took_s` after they were due; None: never."""
    now_s = 0.0
    monkeypatch.setattr(open_loop.time, "perf_counter", lambda: now_s)

    async def made():
        nonlocal now_s
        run = _Run(dialect=None, rate=1 / spacing_s, count=len(took_s))
        for number, each_s in enumerate(took_s):
            if each_s is not None:
                now_s = run.due_s(number) + each_s
                run.answered(number, is_ok=True)
        return run

    return asyncio.run(made())


def test_times_count_from_when_a_frame_was_due_and_the_beginning_does_not_count(monkeypatch):
    first = int(100 * FIRST_SHARE)
    result = run_of(monkeypatch, [9.0] * first + [0.002] * (100 - first)).result(cpu_s=1.0)
    assert (result.frames, result.lost) == (100, 0)
    assert math.isclose(result.p50_ms, 2.0)
    assert math.isclose(result.p99_ms, 2.0)


def test_a_frame_without_an_answer_is_lost_and_infinitely_late(monkeypatch):
    result = run_of(monkeypatch, [0.002] * 95 + [None] * 5).result(cpu_s=1.0)
    assert result.lost == 5
    assert math.isclose(result.p50_ms, 2.0)
    assert math.isinf(result.p99_ms)


def test_a_run_is_finished_when_every_frame_has_an_answer_good_or_not(monkeypatch):
    run = run_of(monkeypatch, [0.002] * 9 + [None])
    assert not run.finished.is_set()
    run.answered(9, is_ok=False)
    assert run.finished.is_set()
    assert run.result(cpu_s=0.0).lost == 1
