"""The simulated device beyond the contract: time, hold, faults, loss, leaks, strictness."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from forebay_server.engines.device_simulated import ByteRange, CopyCosts, FaultPlan, SimulatedDevice
from forebay_server.engines.errors import DeviceLostError, DeviceMemoryError, ExecutionError, MisuseError, RaceError
from tests.support.clock import ManualClock
from tests.support.virtual_clock import VirtualClock

NBYTES = 1000


class Bench:
    """A device with one host buffer, one device buffer, two streams and two events."""

    def __init__(self, clock=None, **settings):
        self.clock = clock or VirtualClock()
        self.device = SimulatedDevice(clock=self.clock, **settings)
        self.host, self.memory = self.device.alloc_host(NBYTES), self.device.alloc_device(NBYTES)
        self.stream, self.other = self.device.create_stream("stream"), self.device.create_stream("other")
        self.event, self.later = self.device.create_event(), self.device.create_event()

    def upload(self, stream=None):
        (stream or self.stream).copy_h2d(self.memory, self.host, NBYTES)


def test_a_copy_costs_latency_and_bytes_over_bandwidth():
    bench = Bench(cost=CopyCosts(copy_latency_ns=500, h2d_bytes_per_s=1e9, d2h_bytes_per_s=2e9))
    started_ns = bench.clock.now_ns()
    bench.upload()
    bench.stream.record(bench.event)
    bench.stream.copy_d2h(bench.host, bench.memory, NBYTES)
    bench.stream.record(bench.later)
    bench.later.sync()
    assert bench.later.elapsed_ns(bench.event) == 500 + 500
    assert bench.clock.now_ns() - started_ns == 500 + 1000 + 500 + 500


def test_enqueuing_takes_no_time_and_an_event_is_done_when_its_time_has_come():
    bench = Bench(cost=CopyCosts(copy_latency_ns=500))
    started_ns = bench.clock.now_ns()
    bench.upload()
    bench.stream.record(bench.event)
    assert bench.clock.now_ns() == started_ns
    assert not bench.event.is_done
    bench.clock.advance(499)
    assert not bench.event.is_done
    bench.clock.advance(1)
    assert bench.event.is_done


def test_seeing_that_an_event_is_done_orders_the_host_after_it():
    bench = Bench()
    bench.upload()
    bench.stream.record(bench.event)
    with pytest.raises(RaceError):
        bench.host.write_view()
    assert bench.event.is_done
    bench.host.write_view()


def test_the_time_of_an_event_that_is_not_done_is_refused():
    bench = Bench(cost=CopyCosts(copy_latency_ns=500))
    bench.stream.record(bench.event)
    bench.upload()
    bench.stream.record(bench.later)
    with pytest.raises(MisuseError):
        bench.later.elapsed_ns(bench.event)


def test_sync_sleeps_on_the_clock_until_the_work_is_done():
    clock = ManualClock()
    bench = Bench(clock, cost=CopyCosts(copy_latency_ns=500))
    bench.upload()
    with ThreadPoolExecutor(1, initializer=bench.device.attach_thread) as pool:
        synced = pool.submit(bench.stream.sync)
        clock.wait_for_sleeper(clock.now_ns() + 500)
        assert not synced.done()
        clock.advance(500)
        synced.result()


def test_a_held_stream_makes_its_waiters_wait_for_release():
    bench = Bench(ManualClock())
    bench.stream.hold()
    bench.upload()
    bench.stream.record(bench.event)
    bench.other.wait(bench.event)
    bench.other.record(bench.later)
    with ThreadPoolExecutor(1, initializer=bench.device.attach_thread) as pool:
        synced = pool.submit(bench.later.sync)
        assert not bench.event.is_done
        assert not bench.later.is_done
        assert not synced.done()
        bench.stream.release()
        synced.result()
    assert bench.later.is_done


def test_rows_written_by_separate_copies_are_separate():
    bench = Bench()
    bench.stream.copy_h2d(bench.memory, bench.host, 500)
    bench.other.copy_h2d(bench.memory, bench.host, 500, dst_offset=500)
    with pytest.raises(RaceError):
        bench.other.copy_h2d(bench.memory, bench.host, 1, dst_offset=499)


def test_an_execution_is_checked_where_it_reads_and_writes():
    bench = Bench()
    bench.stream.copy_h2d(bench.memory, bench.host, 500)
    bench.other.execute(reads=[ByteRange(bench.memory, 500, 500)], writes=[ByteRange(bench.memory, 600, 10)])
    with pytest.raises(RaceError, match="read of device buffer"):
        bench.other.execute(reads=[bench.memory])


def test_reads_of_several_streams_do_not_conflict_but_a_write_does_with_each():
    bench = Bench()
    bench.upload()
    bench.stream.sync()
    bench.stream.execute(reads=[bench.memory])
    bench.other.execute(reads=[bench.memory])
    bench.stream.sync()
    with pytest.raises(RaceError):
        bench.upload()


def test_an_exclusive_resource_admits_only_ordered_executions():
    bench = Bench()
    bench.stream.execute(exclusive="activations")
    bench.other.execute(exclusive="others")
    bench.stream.execute(exclusive="activations")
    with pytest.raises(RaceError, match="activations"):
        bench.other.execute(exclusive="activations")


def test_the_effect_of_an_execution_is_on_the_memory():
    bench = Bench()
    bench.host.write_view()[:] = 3
    bench.upload()

    def double():
        bench.memory.memory[:] *= 2

    bench.stream.execute(reads=[bench.memory], writes=[bench.memory], run=double)
    bench.stream.copy_d2h(bench.host, bench.memory, NBYTES)
    bench.stream.sync()
    np.testing.assert_array_equal(bench.host.read_view(), 6)


def test_a_race_names_both_accesses_and_is_remembered():
    bench = Bench()
    bench.upload()
    message = r"write of host buffer.* by host .*is not ordered after copy_h2d from host buffer.* by stream"
    with pytest.raises(RaceError, match=message):
        bench.host.write_view()
    assert len(bench.device.races) == 1


def test_closing_a_buffer_in_use_is_a_race():
    bench = Bench()
    bench.upload()
    with pytest.raises(RaceError):
        bench.memory.close()


def test_a_thread_has_to_attach_itself():
    bench = Bench()
    with ThreadPoolExecutor(1) as pool, pytest.raises(MisuseError, match="attach_thread"):
        pool.submit(bench.upload).result()


def test_closing_the_device_with_anything_open_names_it():
    bench = Bench()
    with pytest.raises(MisuseError, match="host buffer of 1000 bytes #1"):
        bench.device.close()
    for thing in (bench.host, bench.memory, bench.stream, bench.other, bench.event, bench.later):
        thing.close()
    assert bench.device.leaks == ()
    bench.device.close()
    bench.device.close()


def test_closing_a_stream_waits_for_its_work():
    bench = Bench(cost=CopyCosts(copy_latency_ns=500))
    started_ns = bench.clock.now_ns()
    bench.upload()
    bench.stream.close()
    assert bench.clock.now_ns() == started_ns + 500
    bench.memory.close()


# --- faults


def test_a_planned_failure_hits_that_operation_only():
    bench = Bench(faults=FaultPlan(fail={("copy_h2d", 1): ExecutionError("planned")}))
    bench.host.write_view()[:] = 1
    bench.upload()
    bench.stream.sync()
    bench.host.write_view()[:] = 2
    with pytest.raises(ExecutionError, match="planned"):
        bench.upload()
    assert (bench.memory.memory == 1).all()
    bench.upload()
    assert (bench.memory.memory == 2).all()


def test_a_late_failure_comes_out_where_its_batch_is_waited_for_and_nowhere_else():
    bench = Bench(faults=FaultPlan(fail_late={("execute", 0): ExecutionError("planned")}))
    ran = []
    bench.stream.execute(run=lambda: ran.append(1))
    bench.stream.record(bench.event)
    bench.other.wait(bench.event)
    bench.other.record(bench.later)
    for event in (bench.event, bench.later):
        with pytest.raises(ExecutionError, match="planned"):
            event.sync()
    bench.stream.execute(run=lambda: ran.append(2))
    bench.stream.record(bench.event)
    bench.event.sync()
    bench.other.sync()
    assert ran == [2]


def test_a_late_failure_comes_out_of_a_stream_sync_once():
    bench = Bench(faults=FaultPlan(fail_late={("copy_h2d", 0): ExecutionError("planned")}))
    bench.upload()
    with pytest.raises(ExecutionError):
        bench.stream.sync()
    bench.stream.sync()


def uses_of(bench):
    return (
        bench.upload,
        bench.stream.sync,
        bench.event.sync,
        lambda: bench.event.is_done,
        lambda: bench.stream.record(bench.event),
        lambda: bench.stream.wait(bench.event),
        lambda: bench.device.alloc_host(1),
        bench.device.create_event,
    )


@pytest.mark.parametrize("kind", ["fail", "fail_late"])
def test_a_lost_device_stays_lost_and_can_still_be_closed(kind):
    bench = Bench(faults=FaultPlan(**{kind: {("copy_h2d", 0): DeviceLostError("gone")}}))
    bench.stream.record(bench.event)

    def upload_and_sync():
        bench.upload()
        bench.stream.sync()

    for use in (upload_and_sync, *uses_of(bench)):
        with pytest.raises(DeviceLostError, match="gone"):
            use()
    for thing in (bench.host, bench.memory, bench.stream, bench.other, bench.event, bench.later):
        thing.close()
    bench.device.close()


def test_losing_the_device_wakes_whoever_waits():
    bench = Bench(ManualClock(), faults=FaultPlan(stall={("copy_h2d", 0): None}))
    bench.upload()
    with ThreadPoolExecutor(1, initializer=bench.device.attach_thread) as pool:
        synced = pool.submit(bench.stream.sync)
        bench.device.lose()
        with pytest.raises(DeviceLostError):
            synced.result()


def test_a_stall_adds_to_the_cost_or_holds_the_stream():
    bench = Bench(faults=FaultPlan(stall={("execute", 0): 700, ("execute", 1): None}))
    started_ns = bench.clock.now_ns()
    bench.stream.execute(cost_ns=300)
    bench.stream.sync()
    assert bench.clock.now_ns() == started_ns + 1000
    bench.stream.execute(cost_ns=300)
    bench.stream.record(bench.event)
    bench.clock.advance(10_000)
    assert not bench.event.is_done
    bench.stream.release()
    bench.event.sync()
    assert bench.clock.now_ns() == started_ns + 1000 + 10_000 + 300


def test_an_allocation_can_fail():
    device = SimulatedDevice(
        clock=VirtualClock(), faults=FaultPlan(fail={("alloc_device", 1): DeviceMemoryError("full")})
    )
    device.alloc_device(1)
    with pytest.raises(DeviceMemoryError):
        device.alloc_device(1)


def test_a_plan_armed_later_counts_from_there():
    bench = Bench()
    bench.upload()
    bench.device.arm(FaultPlan(fail={("copy_h2d", 0): ExecutionError("planned")}))
    with pytest.raises(ExecutionError):
        bench.upload()


@pytest.mark.parametrize(
    "plan",
    [
        {"fail": {("copy_h2h", 0): ExecutionError("x")}},
        {"stall": {("record", 0): 1}},
        {"fail_late": {("sync", 0): ExecutionError("x")}},
    ],
)
def test_a_plan_that_could_never_happen_is_refused(plan):
    with pytest.raises(ValueError, match=r"copy_h2d"):
        FaultPlan(**plan)


def test_the_device_knows_its_own():
    bench, stranger = Bench(), Bench()
    assert bench.device.own(bench.host) is bench.host
    assert bench.device.own(bench.memory) is bench.memory
    assert bench.device.own_event(bench.event) is bench.event
    strange = (
        (lambda: bench.device.own(stranger.host), "another machine"),
        (lambda: bench.device.own(stranger.memory), "another device"),
        (lambda: bench.device.own_event(stranger.event), "another device"),
    )
    for use, words in strange:
        with pytest.raises(MisuseError, match=words):
            use()


def neighbour_of(bench):
    return Bench(bench.clock, index=1, machine=bench.device.machine)


def test_a_thread_uses_one_device_of_a_machine_at_a_time():
    first = Bench()
    second = neighbour_of(first)
    second.upload()
    with pytest.raises(MisuseError, match="attach_thread"):
        first.upload()
    first.device.attach_thread()
    first.upload()
    assert [device.name for device in (first.device, second.device)] == ["simulated", "simulated:1"]


def test_a_lost_device_says_so_to_an_engine_that_asks():
    bench = Bench()
    bench.device.raise_if_lost()
    bench.device.lose("for good")
    with pytest.raises(DeviceLostError, match="for good"):
        bench.device.raise_if_lost()


def test_what_one_device_still_reads_is_not_written_for_another():
    """As a frame buffer that is used again before its upload is known to be done."""
    first = Bench(cost=CopyCosts(copy_latency_ns=500))
    second = neighbour_of(first)
    second.stream.copy_h2d(second.memory, first.host, NBYTES)
    second.stream.record(second.event)
    with pytest.raises(RaceError, match="not ordered after copy_h2d"):
        first.host.write_view()
    assert first.device.races == second.device.races != ()
    second.event.sync()
    first.host.write_view()


def test_knowledge_goes_from_device_to_device_through_the_host_alone():
    """Downloaded by one, uploaded by the other: only after the host has synchronised with the first."""
    first = Bench(cost=CopyCosts(copy_latency_ns=500))
    second = neighbour_of(first)
    first.device.attach_thread()
    first.stream.copy_d2h(first.host, first.memory, NBYTES)
    second.device.attach_thread()
    with pytest.raises(RaceError, match="copy_h2d"):
        second.stream.copy_h2d(second.memory, first.host, NBYTES)
    first.device.attach_thread()
    first.stream.sync()
    second.device.attach_thread()
    second.stream.copy_h2d(second.memory, first.host, NBYTES)
