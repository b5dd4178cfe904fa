"""An engine process before front-end processes that come, ask, stop reading, and die at any time."""

import asyncio
import gc
from pathlib import Path

import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.service.batching.constants import MAX_DEPTH
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.messages import (
    FrontEndNumbers,
    Health,
    Known,
    Published,
    Refusals,
    Retired,
    RpcAnswer,
    RpcCall,
    Serving,
    Told,
    Unused,
    Welcome,
)
from forebay_server.service.journal.reception import ReceptionNumbers
from forebay_server.service.journal.statistics import Counts
from tests.support.far_process import engine_process, hold, release
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, eventually, simulated


def counts(engine, version="1") -> Counts:
    return engine.registry.find("sim", version).statistics.snapshot()


async def answered(far):
    def read():
        assert far.read()
        return not far.open

    await eventually(read)


@on_loop
async def test_a_process_is_told_what_serves_and_gets_its_answers(tmp_path):
    async with engine_process(simulated(tmp_path)) as (_, process):
        one = process(1)
        far = await one.far()
        await one.told(Serving)
        kinds = [type(message) for message in one.messages]
        assert kinds == [Welcome, Known, Published, Health, Health, Serving]
        assert [(health.name, health.is_serving) for health in one.got(Health)] == [("sim", True), ("", True)]
        made = [far.request(value) for value in (5, 6, 7)]
        far.send([record for _, record in made])
        await answered(far)
        for (token, _), value in zip(made, (5, 6, 7), strict=True):
            _, (output,) = far.answers[token]
            assert output.tolist() == [[value] * ROW_BYTES]


@on_loop
async def test_processes_share_the_batches_of_one_former(tmp_path):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        first, second = [await process(front_end).far() for front_end in (0, 1)]
        statistics = engine.registry.all()[0].former.statistics
        hold(engine)
        for in_flight in range(1, MAX_DEPTH + 1):  # until no more can be bound
            first.send([first.request(1)[1]])
            await eventually(lambda in_flight=in_flight: statistics().in_flight == in_flight)
        for far in (first, second):
            far.send([far.request(2)[1], far.request(3)[1]])
        await eventually(lambda: statistics().pending_requests == 4)
        release(engine)
        await answered(first)
        await answered(second)
        assert {size for size, _ in second.answers.values()} == {4}
        assert counts(engine).rows == MAX_DEPTH + 4


@on_loop
async def test_requests_of_several_rows_lie_in_the_rows_area(tmp_path):
    async with engine_process(simulated(tmp_path)) as (_, process):
        far = await process(1).far()
        token, record = far.request(5, 6, 7)
        far.send([record])
        await answered(far)
        size, (output,) = far.answers[token]
        assert size >= 3
        assert [set(row.tolist()) for row in output] == [{5}, {6}, {7}]


@pytest.mark.parametrize("state", ["greeted", "pending", "executing", "answered"])
@on_loop
async def test_a_process_that_dies_leaves_its_memory_to_the_next_once_its_requests_have_ended(tmp_path, state):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        old = process(0)
        far = await old.far()
        other = await process(1).far()
        former = engine.registry.all()[0].former
        if state != "greeted":
            old.permits.write(0, 3)
            hold(engine) if state != "answered" else None
            far.send([far.request(1)[1]])
            if state == "answered":
                await eventually(lambda: counts(engine).rows == 1)
            else:
                await eventually(lambda: former.statistics().in_flight == 1)
        if state == "pending":
            made = [far.request(2)[1] for _ in range(6)]  # more than a lane takes
            far.send(made)
            await eventually(lambda: former.statistics().waiting_requests == 6)
        old.die()
        new = process(0)
        if state in ("pending", "executing"):
            await eventually(lambda: former.statistics().pending_requests == 0 or state == "executing")
            other.send([other.request(9)[1]])
            await asyncio.sleep(0)
            assert not new.got(Welcome)
            release(engine)
        far = await new.far()
        assert new.permits.read(0) == 0
        token, record = far.request(8)
        far.send([record])
        await answered(far)
        assert list(far.answers) == [token]
        if state in ("pending", "executing"):
            await answered(other)
        assert not engine.registry.all()[0].devices[0].races
    assert engine.code == 0


@on_loop
async def test_many_deaths_leave_nothing_behind(tmp_path):
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    async with engine_process(simulated(tmp_path)) as (engine, process):
        counts = []
        gc.collect()  # sockets of earlier tests
        for _ in range(10):
            one = process(0)
            far = await one.far()
            far.send([far.request(value)[1] for value in range(5)])
            one.die()
            one.forget_files()
            await eventually(lambda: not engine.peers._peers)
            counts.append(open_files())
        assert len(set(counts[1:])) == 1, counts
        assert engine.registry.all()[0]._users == 0


@on_loop
async def test_a_process_that_reads_no_more_holds_up_no_other(tmp_path):
    async with engine_process(simulated(tmp_path), permits=4096) as (engine, process):
        stopped, other = await process(0).far(), await process(1).far()
        made = [stopped.request(value % 250) for value in range(2048)]
        for datagram in wire.datagrams([record for _, record in made]):
            while True:
                try:
                    stopped.send([datagram])
                    break
                except BlockingIOError:  # the engine process is at it
                    await asyncio.sleep(0.001)
        await eventually(lambda: counts(engine).rows == 2048)
        (link,) = [peer.link for peer in engine.peers._peers if peer.front_end == 0]
        assert link._waiting, "the socket takes all: the test proves nothing"
        token, record = other.request(7)
        other.send([record])
        await answered(other)
        assert list(other.answers) == [token]
        await answered(stopped)
        assert sorted(stopped.answers) == [token for token, _ in made]
        assert not link._waiting


@on_loop
async def test_a_process_with_a_bug_is_dropped_and_the_others_go_on(tmp_path, caplog):
    async with engine_process(simulated(tmp_path)) as (_, process):
        bad = process(0)
        broken, other = await bad.far(), await process(1).far()
        broken.send([wire.pack_request(1, 999, 1, 1, 1, 0, 0, wire.NONE, 0)])
        await eventually(lambda: bad.is_lost)
        other.send([other.request(7)[1]])
        await answered(other)
        new = await process(0).far()
        new.send([new.request(6)[1]])
        await answered(new)


@on_loop
async def test_a_reload_publishes_the_new_version_before_the_old_one_retires(tmp_path):
    root = simulated(tmp_path)
    async with engine_process(root, model_control_mode="explicit", load_model=("sim",)) as (engine, process):
        one = process(1)
        far = await one.far()
        simulated(tmp_path / "new", version=2)
        (tmp_path / "sim" / "1").rename(tmp_path / "sim" / "2")
        await asyncio.to_thread(engine.lifecycle.load, "sim")
        new = await one.far(version="2")
        (retired,) = await one.told(Retired)
        kinds = [type(message) for message in one.messages if not isinstance(message, Known)]
        assert kinds.index(Retired) > len(kinds) - 1 - kinds[::-1].index(Published)
        assert retired.number == far.number != new.number
        far.send([far.request(3)[1]])  # its streams go on until they have reconnected
        await answered(far)
        assert engine.registry.unloading() == [("sim", "1")]
        one.talk.send(Unused(far.number))
        await eventually(lambda: engine.registry.unloading() == [])
        new.open_stream()
        new.send([new.request(4)[1]])
        await answered(new)


@on_loop
async def test_versions_of_a_dead_process_are_let_go_of(tmp_path):
    async with engine_process(simulated(tmp_path), model_control_mode="explicit", load_model=("sim",)) as (
        engine,
        process,
    ):
        one = process(1)
        await one.far()
        one.die()
        await asyncio.to_thread(engine.lifecycle.unload, "sim")
        await eventually(lambda: engine.registry.unloading() == [])


@on_loop
async def test_the_last_words_of_a_dead_process_count_and_no_counter_falls(tmp_path):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        one = process(1)
        far = await one.far()
        reception = ReceptionNumbers(connections=3, ended={"late": 2})
        numbers = FrontEndNumbers(reception, worker_threads=4, log_lines_dropped=7)
        one.talk.send(Told(refusals=(Refusals(far.number, "invalid", 5, 0),), numbers=numbers))
        before = engine.gauges.server().log_lines_dropped
        engine.links.stop()  # as if the end of the data socket were seen before the words
        one.die()
        await eventually(lambda: counts(engine).fail.count == 5)
        server = engine.gauges.server()
        assert server.log_lines_dropped == before + 7
        assert (server.reception.ended, server.reception.connections, server.worker_threads) == ({"late": 2}, 0, 0)


@on_loop
async def test_a_call_of_the_group_is_answered_and_its_changes_are_told_first(tmp_path):
    async with engine_process(simulated(tmp_path), model_control_mode="explicit", load_model=("sim",)) as (_, process):
        one, other = process(0), process(1)
        await one.far()
        await other.far()
        request = pb.RepositoryModelUnloadRequest(model_name="sim").SerializeToString()
        one.talk.send(RpcCall(1, "RepositoryModelUnload", request))
        (answer,) = await one.told(RpcAnswer)
        assert (answer.id, answer.code) == (1, "OK")
        assert one.got(Retired)
        await other.told(Retired)


@on_loop
async def test_a_process_that_never_greets_and_one_with_a_wrong_number_hold_nothing_up(tmp_path):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        process(0, greets=False)
        wrong = process(7)
        await eventually(lambda: wrong.is_lost)
        far = await process(0).far()  # the parent has started it anew
        far.send([far.request(1)[1]])
        await answered(far)
        silent = process(1, greets=False)
        await eventually(lambda: len(engine.peers._peers) == 2)
        silent.die()
        await eventually(lambda: len(engine.peers._peers) == 1)


@on_loop
async def test_the_end_waits_for_the_processes_and_then_all_is_closed(tmp_path):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        one = process(1)
        far = await one.far()
        version = engine.registry.all()[0]
        engine.stop()
        closing = asyncio.create_task(engine.close())
        far.send([far.request(1)[1]])  # the last requests of a front-end process are answered
        await answered(far)
        assert not closing.done()
        one.die()
        assert await closing == 0
        assert version.devices[0].leaks == ()


@on_loop
async def test_a_fatal_error_hangs_up_and_asks_for_a_restart(tmp_path):
    async with engine_process(simulated(tmp_path)) as (engine, process):
        one = process(1)
        await one.far()
        engine.on_fatal(RuntimeError("the device is lost"))
        await engine.wait()
        assert await engine.close() == 70
        await eventually(lambda: one.is_lost)
        await asyncio.to_thread(engine.registry.close, 10)
        await asyncio.to_thread(engine.links.stop)
        await asyncio.to_thread(engine.pool.close)
