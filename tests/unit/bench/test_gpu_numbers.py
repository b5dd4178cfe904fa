"""Slopes with their confidence, medians of repeats, and CPU by thread."""

import os
import threading

import numpy as np
import pytest

from forebay_server.bench.gpu.memory import resident_by_kind
from forebay_server.bench.gpu.numbers import middle, significant, slope
from forebay_server.bench.gpu.threads import grouped, hottest, thread_cpu_s, thread_names

TIMES_S = np.arange(0.0, 240.0, 2.0)


def wandering(seed):
    """Memory that goes up and down without a trend: each sample hangs on the one before."""
    source = np.random.default_rng(seed)
    values, deviation = [], 0.0
    for _ in TIMES_S:
        deviation = 0.8 * deviation + source.normal()
        values.append(1700.0 + deviation)
    return values


def test_the_slope_of_a_line_is_exact_and_certain():
    found = slope(TIMES_S, 100.0 + TIMES_S / 3600 * 12)
    assert found.per_hour == pytest.approx(12.0)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-6)


def test_a_leak_within_noise_is_seen():
    found = slope(TIMES_S, np.asarray(wandering(3)) + TIMES_S / 3600 * 600)
    assert found.low > 0
    assert found.low < 600 < found.high


def test_the_interval_covers_no_slope_about_as_often_as_it_says():
    covered = sum(found.low <= 0 <= found.high for found in (slope(TIMES_S, wandering(seed)) for seed in range(200)))
    assert covered >= 180


def test_too_few_samples_have_no_slope():
    assert slope(TIMES_S[:29], TIMES_S[:29]) is None


def test_the_middle_of_repeats_is_the_median_of_each_number():
    repeats = [{"p99_ms": value, "statuses": {}} for value in (5.0, 1.0, 3.0)]
    assert middle(repeats) == {"p99_ms": 3.0, "statuses": {}, "repeats": repeats}


def test_only_floats_are_rounded():
    assert significant({"a": [1.23456, 123456, True, None, "x"]}, 3) == {"a": [1.23, 123456, True, None, "x"]}


def test_cpu_is_added_up_by_what_threads_are_called():
    names = {1: "worker-0", 2: "worker-1", 3: "detector.1.0.execute"}
    assert grouped({1: 0.2, 2: 0.3, 3: 0.1, 4: 0.0}, names) == {"worker": 0.5, "execute": 0.1}


def test_every_thread_of_a_process_is_counted_and_has_a_name():
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        seconds, names = thread_cpu_s(os.getpid()), thread_names(os.getpid())
    finally:
        is_over.set()
        thread.join()
    assert thread.native_id in seconds
    assert seconds[os.getpid()] > 0
    assert set(seconds) <= set(names)


def test_the_hottest_functions_come_with_their_thread(tmp_path):
    stacks = ["thread (12): loop;run (a.py:1);read (b.py:7) 3", "thread (12): loop;run (a.py:1);read (b.py:9) 1",
              "thread (13): worker-1;work (c.py:2) 2", "thread (14): worker-3;work (c.py:2) 4"]  # fmt: skip
    (tmp_path / "stacks").write_text("\n".join(stacks) + "\n")
    found = hottest(tmp_path / "stacks")
    assert [(each["thread"], each["function"], each["share"]) for each in found] == [
        ("worker", "work (c.py)", 0.6),
        ("loop", "read (b.py)", 0.4),
    ]


def test_resident_memory_is_divided_by_kind_and_adds_up():
    kinds = resident_by_kind(os.getpid())
    assert kinds["libraries"] > 1
    assert kinds["anonymous"] + kinds["heap"] > 1
