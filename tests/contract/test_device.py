"""The device contract (engines/device.py), run against every device. To add one, add a line to DEVICE_KINDS."""

import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.errors import BackendUnavailableError, MisuseError
from tests.support.rig import rig_of

DEVICE_KINDS = ["cpu", "simulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def open_or_skip(kind, index=0):
    try:
        return open_device(kind, clock=MonotonicClock(), index=index)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=DEVICE_KINDS)
def rig(request):
    with rig_of(open_or_skip(request.param)) as rig:
        yield rig


@pytest.fixture
def other(rig):
    """A second device of the same kind, on the same machine."""
    if rig.device.name == "simulated":
        device = SimulatedDevice(clock=MonotonicClock(), index=1, machine=rig.device.machine)
    else:
        kind = rig.device.name.split(":")[0]
        device = open_or_skip(kind, index=1 if rig.device.kind_count > 1 else 0)
    with rig_of(device) as other:
        yield other
        device.attach_thread()
    rig.device.attach_thread()


def fill(buffer, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, buffer.nbytes).astype(np.uint8)
    buffer.write_view()[:] = values
    return values


def test_bytes_come_back_as_they_went(rig):
    source, middle, target = rig.host(100_000), rig.on_device(100_000), rig.host(100_000)
    stream = rig.stream()
    values = fill(source)
    stream.copy_h2d(middle, source, 100_000)
    stream.copy_d2h(target, middle, 100_000)
    stream.sync()
    np.testing.assert_array_equal(target.read_view(), values)


def test_copies_honour_offsets_and_touch_nothing_else(rig):
    source, middle, target = rig.host(64), rig.on_device(64), rig.host(64)
    stream = rig.stream()
    values = fill(source)
    target.write_view()[:] = 7
    stream.copy_h2d(middle, source, 64)
    stream.copy_h2d(middle, source, 8, dst_offset=16, src_offset=40)
    stream.copy_d2h(target, middle, 32)
    stream.sync()
    expected = np.full(64, 7, np.uint8)
    expected[:32] = np.concatenate([values[:16], values[40:48], values[24:32]])
    np.testing.assert_array_equal(target.read_view(), expected)


@pytest.mark.parametrize("nbytes", [0, 1, 16 * 1024, 16 * 1024 + 1])
def test_copies_of_any_size_are_whole(rig, nbytes):
    source, middle, target = rig.host(20_000), rig.on_device(20_000), rig.host(20_000)
    stream = rig.stream()
    values = fill(source)
    target.write_view()[:] = 0
    stream.copy_h2d(middle, source, nbytes)
    stream.copy_d2h(target, middle, nbytes)
    stream.sync()
    np.testing.assert_array_equal(target.read_view()[:nbytes], values[:nbytes])
    assert not target.read_view()[nbytes:].any()


def test_rows_of_many_host_buffers_gather_in_one_device_buffer(rig):
    frames = [rig.host(1000) for _ in range(5)]
    batch, target, stream = rig.on_device(5000), rig.host(5000), rig.stream()
    values = [fill(frame, seed) for seed, frame in enumerate(frames)]
    for row, frame in enumerate(frames):
        stream.copy_h2d(batch, frame, 1000, dst_offset=row * 1000)
    stream.copy_d2h(target, batch, 5000)
    stream.sync()
    np.testing.assert_array_equal(target.read_view(), np.concatenate(values))


@pytest.mark.parametrize("sizes", [(1000,), (1000, 1, 700), (0, 400, 0, 400), (0,), ()])
def test_pieces_of_host_buffers_lie_one_behind_the_other_after_one_call(rig, sizes):
    offset, total = 24, sum(sizes)
    frames = [rig.host(offset + nbytes) for nbytes in sizes]
    batch, target, stream = rig.on_device(3000), rig.host(3000), rig.stream()
    target.write_view()[:] = 0
    stream.copy_h2d(batch, target, 3000)
    values = [fill(frame, seed)[offset:] for seed, frame in enumerate(frames)]
    stream.gather_h2d(batch, [(frame, offset, nbytes) for frame, nbytes in zip(frames, sizes, strict=True)])
    stream.copy_d2h(target, batch, 3000)
    stream.sync()
    np.testing.assert_array_equal(target.read_view()[:total], np.concatenate([np.empty(0, np.uint8), *values]))
    assert not target.read_view()[total:].any()


@pytest.mark.parametrize("pieces", [((0, 6), (0, 5)), ((0, 1), (6, 5)), ((0, 1), (0, -1)), ((0, 1), (-1, 1))])
def test_pieces_outside_a_buffer_are_refused(rig, pieces):
    host, device, stream = rig.host(10), rig.on_device(10), rig.stream()
    with pytest.raises(MisuseError):
        stream.gather_h2d(device, [(host, offset, nbytes) for offset, nbytes in pieces])


def test_a_mirror_holds_the_host_buffers_bytes_after_the_copy(rig):
    host = rig.host(4096)
    mirror, target, stream = rig.on_device(4000, host), rig.host(4000), rig.stream()
    values = fill(host)
    stream.copy_h2d(mirror, host, 4000)
    stream.copy_d2h(target, mirror, 4000)
    stream.sync()
    np.testing.assert_array_equal(target.read_view(), values[:4000])


def test_a_mirror_larger_than_its_host_buffer_is_refused(rig):
    host = rig.host(10)
    with pytest.raises(MisuseError):
        rig.device.alloc_device(11, host)


def test_an_event_orders_two_streams(rig):
    source, middle, target = rig.host(50_000), rig.on_device(50_000), rig.host(50_000)
    up, down, uploaded, downloaded = rig.stream("up"), rig.stream("down"), rig.event(), rig.event()
    for seed in range(3):
        values = fill(source, seed)
        up.copy_h2d(middle, source, 50_000)
        up.record(uploaded)
        down.wait(uploaded)
        down.copy_d2h(target, middle, 50_000)
        down.record(downloaded)
        downloaded.sync()
        np.testing.assert_array_equal(target.read_view(), values)


def test_an_event_is_done_only_after_it_was_recorded(rig):
    event, stream = rig.event(), rig.stream()
    assert not event.is_done
    stream.record(event)
    event.sync()
    assert event.is_done


def test_an_event_can_be_recorded_again(rig):
    first, second, stream = rig.event(), rig.event(), rig.stream()
    stream.record(first)
    stream.record(second)
    stream.record(first)
    stream.sync()
    assert first.elapsed_ns(second) >= 0
    assert second.elapsed_ns(first) <= 0


def test_elapsed_time_between_events_is_not_negative(rig):
    started, ended, stream = rig.event(), rig.event(), rig.stream()
    host, middle = rig.host(1_000_000), rig.on_device(1_000_000)
    stream.record(started)
    stream.copy_h2d(middle, host, 1_000_000)
    stream.record(ended)
    ended.sync()
    assert 0 <= ended.elapsed_ns(started) < 10_000_000_000


def test_an_event_never_recorded_cannot_be_waited_for(rig):
    event, recorded, stream = rig.event(), rig.event(), rig.stream()
    stream.record(recorded)
    recorded.sync()
    for use in (event.sync, lambda: stream.wait(event), lambda: event.elapsed_ns(recorded)):
        with pytest.raises(MisuseError):
            use()


@pytest.mark.parametrize(
    ("nbytes", "dst_offset", "src_offset"), [(11, 0, 0), (5, 6, 0), (5, 0, 6), (-1, 0, 0), (1, -1, 0), (1, 0, -1)]
)
def test_a_copy_outside_a_buffer_is_refused(rig, nbytes, dst_offset, src_offset):
    host, device, stream = rig.host(10), rig.on_device(10), rig.stream()
    with pytest.raises(MisuseError):
        stream.copy_h2d(device, host, nbytes, dst_offset, src_offset)


@pytest.mark.parametrize("nbytes", [11, -1])
def test_a_copy_to_the_host_outside_a_buffer_is_refused(rig, nbytes):
    host, device, stream = rig.host(10), rig.on_device(10), rig.stream()
    with pytest.raises(MisuseError):
        stream.copy_d2h(host, device, nbytes)


def test_another_devices_memory_and_events_are_refused(rig, other):
    foreign_event, foreign_stream, foreign_buffer = other.event(), other.stream(), other.on_device(10)
    foreign_stream.record(foreign_event)
    foreign_stream.sync()
    rig.device.attach_thread()
    host, target, stream, event = rig.host(10), rig.host(10), rig.stream(), rig.event()
    stream.record(event)
    stream.sync()
    uses = (
        lambda: stream.copy_h2d(foreign_buffer, host, 10),
        lambda: stream.gather_h2d(foreign_buffer, [(host, 0, 1), (host, 1, 1)]),
        lambda: stream.copy_d2h(target, foreign_buffer, 10),
        lambda: stream.record(foreign_event),
        lambda: stream.wait(foreign_event),
        lambda: event.elapsed_ns(foreign_event),
    )
    for use in uses:
        with pytest.raises(MisuseError):
            use()


def test_host_buffers_serve_every_device_of_their_kind(rig, other):
    source, target, gathered = other.host(100), other.host(100), other.host(100)
    rig.device.attach_thread()
    values = fill(source)
    mirror, middle, stream = rig.on_device(100, source), rig.on_device(100), rig.stream()
    stream.copy_h2d(mirror, source, 100)
    stream.copy_d2h(target, mirror, 100)
    stream.gather_h2d(middle, [(source, 50, 50), (source, 0, 50)])
    stream.copy_d2h(gathered, middle, 100)
    stream.sync()
    np.testing.assert_array_equal(target.read_view(), values)
    np.testing.assert_array_equal(gathered.read_view(), np.roll(values, 50))


def test_a_machine_has_at_least_the_device_itself(rig):
    assert rig.device.kind_count >= 1


def test_use_after_close_is_refused(rig):
    host, device, stream, event = rig.host(10), rig.on_device(10), rig.stream(), rig.event()
    open_host, open_device_buffer, open_stream = rig.host(10), rig.on_device(10), rig.stream()
    for thing in (host, device, stream, event):
        thing.close()
    uses = (
        host.write_view,
        host.read_view,
        lambda: open_stream.copy_h2d(open_device_buffer, host, 1),
        lambda: open_stream.copy_h2d(device, open_host, 1),
        lambda: open_stream.gather_h2d(device, [(host, 0, 1), (open_host, 0, 1)]),
        lambda: open_stream.record(event),
        lambda: open_stream.wait(event),
        lambda: stream.copy_h2d(open_device_buffer, open_host, 1),
        stream.sync,
        event.sync,
    )
    for use in uses:
        with pytest.raises(MisuseError):
            use()


def test_closing_twice_is_closing_once(rig):
    things = (rig.host(10), rig.on_device(10), rig.stream(), rig.event())
    for thing in things:
        thing.close()
        thing.close()


def mapped(nbytes):
    """Memory as processes share it."""
    return memoryview(mmap.mmap(-1, nbytes))


def test_foreign_memory_is_copied_from_and_to_as_it_is(rig):
    memory, nbytes = mapped(8192), 8192
    source = rig.keep(rig.device.register_host(memory))
    middle, stream = rig.on_device(4096), rig.stream()
    memory[:4096] = np.arange(4096, dtype=np.uint16).astype(np.uint8).tobytes()  # as another process would
    stream.copy_h2d(middle, source, 4096)
    stream.copy_d2h(source.part(4096, 4096), middle, 4096)
    stream.sync()
    assert source.nbytes == nbytes
    assert source.read_view()[4096:].tobytes() == bytes(memory[:4096])


def test_parts_of_foreign_memory_are_buffers_of_their_own(rig):
    memory = mapped(4 * 4096)
    whole = rig.keep(rig.device.register_host(memory))
    parts = [whole.part(4096 * number, 4096) for number in range(4)]
    middle, target, stream = rig.on_device(8192), rig.host(8192), rig.stream()
    values = [fill(part, seed) for seed, part in enumerate(parts)]
    stream.gather_h2d(middle, [(parts[3], 0, 4096), (parts[1], 96, 4000)])
    stream.copy_d2h(target, middle, 8096)
    stream.sync()
    np.testing.assert_array_equal(target.read_view()[:8096], np.concatenate([values[3], values[1][96:]]))
    assert bytes(memory) == np.concatenate(values).tobytes()


def test_parts_end_with_their_memory_and_memory_stays_with_its_owner(rig):
    memory = mapped(4096)
    whole = rig.device.register_host(memory)
    part, middle, stream = whole.part(0, 64), rig.on_device(64), rig.stream()
    fill(part)
    kept = bytes(memory)
    whole.close()
    for use in (part.write_view, part.read_view, lambda: stream.copy_h2d(middle, part, 64), lambda: whole.part(0, 1)):
        with pytest.raises(MisuseError):
            use()
    assert bytes(memory) == kept
    again = rig.keep(rig.device.register_host(memory))
    assert again.read_view().tobytes() == kept


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 65), (64, 1), (-1, 1), (0, -1)])
def test_a_part_outside_its_buffer_is_refused(rig, offset, nbytes):
    buffer = rig.host(64)
    with pytest.raises(MisuseError):
        buffer.part(offset, nbytes)


def test_buffers_are_aligned_for_vector_instructions_and_know_their_size(rig):
    for nbytes in (1, 100, 5000, 1_000_000):
        buffer = rig.on_device(nbytes)
        assert buffer.address % 64 == 0
        assert buffer.nbytes == nbytes
        assert rig.host(nbytes).write_view().shape == (nbytes,)


@pytest.mark.parametrize("nbytes", [16, 64, 256, 4096, 100_000, 300_000])
def test_memory_is_handed_out_cleared_whoever_had_it_before(rig, nbytes):
    stream, target = rig.stream(), rig.host(nbytes)
    for _ in range(8):  # freed memory is handed out again
        device = rig.device
        hosts = [device.alloc_host(nbytes) for _ in range(4)]
        buffers = [device.alloc_device(nbytes) for _ in range(4)]
        for host in hosts:
            assert not host.read_view().any()
        for buffer in buffers:
            target.write_view()[:] = 0xA7
            stream.copy_d2h(target, buffer, nbytes)
            stream.sync()
            assert not target.read_view().any()
        for host, buffer in zip(hosts, buffers, strict=True):
            host.write_view()[:] = 0xA7
            stream.copy_h2d(buffer, host, nbytes)
        stream.sync()
        for each in (*hosts, *buffers):
            each.close()


def test_an_attached_thread_can_use_the_device(rig):
    source, middle, target = rig.host(1000), rig.on_device(1000), rig.host(1000)
    stream, values = rig.stream(), fill(source)

    def copy_there_and_back():
        rig.device.attach_thread()
        rig.device.attach_thread()
        stream.copy_h2d(middle, source, 1000)
        stream.copy_d2h(target, middle, 1000)
        stream.sync()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy_there_and_back).result()
    np.testing.assert_array_equal(target.read_view(), values)


def test_the_device_has_a_name_and_a_gather_limit(rig):
    assert rig.device.name
    assert rig.device.gather_below_bytes >= 0


def test_the_device_says_what_it_is(rig):
    device = rig.device
    assert device.kind in DeviceKind
    assert device.name in (device.kind, f"{device.kind}:{device.index}")
    assert 0 <= device.index < device.kind_count
    assert device.is_synchronous == (device.kind == DeviceKind.CPU)
    hardware = device.describe()
    assert hardware.name
    assert (hardware.compute_capability is not None) == (device.kind == DeviceKind.CUDA)


def test_a_device_that_works_is_not_lost(rig):
    rig.device.raise_if_lost()


def test_captured_work_runs_when_its_graph_is_launched_and_not_before(rig):
    source, target, stream = rig.host(1000), rig.on_device(1000), rig.stream()
    values, result = fill(source), rig.host(1000)
    calls = []

    def enqueue():
        calls.append(None)
        stream.copy_h2d(target, source, 1000)

    graph = stream.capture(enqueue)
    if graph is None:
        assert not calls, "a device without graphs leaves the work alone"
        return
    rig.keep(graph)
    stream.copy_d2h(result, target, 1000)
    stream.sync()
    assert not result.read_view().any()
    graph.launch(stream)
    stream.copy_d2h(result, target, 1000)
    stream.sync()
    np.testing.assert_array_equal(result.read_view(), values)


def test_memory_tells_what_is_allocated_where_the_device_has_its_own(rig):
    before = rig.device.memory()
    if before is None:
        assert rig.device.name == "cpu"
        return
    buffer = rig.on_device(64 << 20)
    during = rig.device.memory()
    assert during.used_bytes - before.used_bytes >= 64 << 20
    assert during.used_bytes <= during.total_bytes == before.total_bytes
    buffer.close()
    assert rig.device.memory().used_bytes < during.used_bytes
