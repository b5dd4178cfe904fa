"""The messages between processes, the pacer's kernel timer, and the live view."""

import asyncio

import numpy as np
import pytest

from forebay_server.loadtest import histograms, messages
from forebay_server.loadtest.clock import MonotonicClock
from forebay_server.loadtest.errors import InvalidRunError, UsageError
from forebay_server.loadtest.frames import FramesSpec
from forebay_server.loadtest.job import Job
from forebay_server.loadtest.live import LiveView
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.pacer import TimerfdPacer
from forebay_server.loadtest.recorder import ROW, Counters, pack, unpack
from forebay_server.loadtest.scenario import ArrivalProcess, Policy, Scenario
from forebay_server.loadtest.target import Delivery, Encoding, TargetSpec
from tests.unit.loadtest.virtual import LoopClock, run_virtually


def test_a_message_and_its_binary_part_survive_the_pipe():
    async def reading(data):
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return [await messages.read(reader), await messages.read(reader)]

    block = messages.encode({"type": "result", "n": 1}, b"\x00\xff")
    assert asyncio.run(reading(block)) == [block, None]
    assert messages.decode(block) == ({"type": "result", "n": 1}, b"\x00\xff")
    assert asyncio.run(reading(block[:-1])) == [None, None]


@pytest.mark.parametrize(
    "block", [b"", b"\x00" * 12, messages.encode({})[:-1], b"\xff" * 40, b"\x00" * 3 + b"\x02" + b"\x00" * 8 + b"[]"]
)
def test_what_is_no_message_is_refused(block):
    with pytest.raises(InvalidRunError):
        messages.decode(block)


def test_rows_and_counters_survive_the_way_to_the_coordinator():
    rows = np.zeros(3, ROW)
    rows["done_ns"] = [1, 2, 3]
    assert np.array_equal(unpack(pack(rows)), rows)
    counters = Counters(offered=3, answers={"OK": 2, "FAILED": 1}, first_error="x")
    total = Counters(offered=1, answers={"OK": 1})
    total.add(Counters(**counters.to_dict()))
    assert (total.offered, total.answers, total.first_error) == (4, {"OK": 3, "FAILED": 1}, "x")
    with pytest.raises(InvalidRunError, match="another version"):
        unpack(pack(np.zeros(1, np.dtype([("a", np.int8)]))))


def test_a_job_survives_the_way_to_its_process():
    job = Job(
        scenario=Scenario(arrival=ArrivalProcess.GAMMA, seed=3),
        spec=TargetSpec(encoding=Encoding.TENSOR, shape=(3, 4), budget_ms=50.0, delivery=Delivery.EVERY),
        frames=FramesSpec(size=(10, 20)),
        index=1,
        processes=4,
    )
    message, _ = messages.decode(messages.encode(job.to_message()))
    assert Job.from_message(message) == job
    with pytest.raises(UsageError, match="no job"):
        Job.from_message({"type": "prepare"})


def test_options_choose_their_defaults_by_the_kind_of_load():
    cameras = LoadOptions(cameras=3, fps=10).job()
    assert (cameras.scenario.arrival, cameras.scenario.policy) == (ArrivalProcess.CAMERAS, Policy.DROP_OLDEST)
    assert (cameras.spec.delivery, cameras.spec.encoding) == (Delivery.LATEST, Encoding.JPEG)
    poisson = LoadOptions(rate=50.0, shape="3x4").job()
    assert (poisson.scenario.arrival, poisson.scenario.policy) == (ArrivalProcess.POISSON, Policy.BLOCK)
    assert (poisson.spec.delivery, poisson.spec.encoding) == (Delivery.EVERY, Encoding.TENSOR)
    assert poisson.frames.tensor_bytes == 48
    assert LoadOptions(concurrency=4).job().scenario.arrival is ArrivalProcess.CLOSED
    assert LoadOptions(budget="40ms").good_within_ms() == 40
    assert LoadOptions().good_within_ms() == 100


def test_the_kernel_timer_fires_in_order_and_never_early():
    async def pacing():
        clock, fired = MonotonicClock(), []
        start_ns = clock.now_ns()
        schedule = [(delay_us * 1000, 0, index) for index, delay_us in enumerate((0, 200, 200, 1500, 7300))]
        pacer = TimerfdPacer(clock)
        await pacer.run(
            iter(schedule), start_ns, lambda due_ns, _, i: fired.append((clock.now_ns() - start_ns - due_ns, i))
        )
        return fired

    fired = asyncio.run(pacing())
    assert [index for _, index in fired] == [0, 1, 2, 3, 4]
    assert all(late_ns >= 0 for late_ns, _ in fired)


def test_a_stopped_pacer_returns_without_firing_the_rest():
    async def pacing():
        clock, fired = MonotonicClock(), []
        pacer = TimerfdPacer(clock)

        def fire(due_ns, stream, frame):
            fired.append(frame)
            pacer.stop()

        await pacer.run(iter([(0, 0, 1), (3_600_000_000_000, 0, 2)]), clock.now_ns(), fire)
        return fired

    assert asyncio.run(pacing()) == [1]


def test_an_error_in_the_generator_ends_the_run_instead_of_the_loop():
    async def pacing():
        clock = MonotonicClock()

        def fire(due_ns, stream, frame):
            raise ZeroDivisionError

        await TimerfdPacer(clock).run(iter([(0, 0, 1)]), clock.now_ns(), fire)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(pacing())


def test_virtual_time_is_exact():
    async def sleeping():
        clock = LoopClock()
        start_ns = clock.now_ns()
        await asyncio.sleep(3600)
        return clock.now_ns() - start_ns

    assert run_virtually(sleeping()) == pytest.approx(3600e9, abs=1000)


def test_the_live_view_adds_up_all_processes():
    view = LiveView(Scenario(duration_s=10), "test", is_wanted=False)
    for process in range(2):
        progress = {
            "elapsed_s": 5.0,
            "counters": Counters(offered=7, sent=6, answers={"OK": 5}).to_dict(),
            "hdr": histograms.encode(np.full(5, 12.0)),
            "lag_p99_ms": 0.25,
        }
        view.take(process, progress)
    table = view.table()
    cells = {column.header: next(column.cells) for column in table.columns}
    assert (cells["offered"], cells["sent"], cells["ok"]) == ("14", "12", "10")
    assert cells["p99 so far"] == "12.0 ms"
    assert "5/10 s" in str(table.title)
