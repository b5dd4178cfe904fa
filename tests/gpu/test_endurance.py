"""Ten thousand batches, a full GPU, and a device that is lost."""

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from forebay_server.engines.errors import DeviceMemoryError
from tests.gpu.workload import open_workload, pictures
from tests.support.rig import BoundSlot

ROOT = Path(__file__).parents[2]


def test_ten_thousand_batches_leak_nothing(rig, tmp_path, measured):
    engine = open_workload(rig, tmp_path, width=8, max_batch_size=4)
    slots = [BoundSlot(rig, engine, index) for index in range(4)]
    engine.warm_up((1, 4), slots[0].compute)
    batch = pictures(4)

    def run(count):
        for number in range(count):
            slots[number % 4].run([batch[: (1, 2, 4)[number % 3]]])

    run(500)
    free_before, rss_before = rig.device.free_bytes(), psutil.Process().memory_info().rss
    run(10_000)
    device_mib = (free_before - rig.device.free_bytes()) / 2**20
    host_mib = (psutil.Process().memory_info().rss - rss_before) / 2**20
    measured(f"device {device_mib:+.1f} MiB, host {host_mib:+.1f} MiB; {engine.launches}")
    assert device_mib <= 0
    assert host_mib < 16


def test_opening_and_closing_an_engine_gives_its_memory_back(rig, tmp_path, measured):
    def once():
        engine = open_workload(rig, tmp_path, width=32)
        slot = BoundSlot(rig, engine, 0)
        engine.warm_up((1, 8), slot.compute)
        slot.run([pictures(8)])
        rig.close()

    once()
    before = rig.device.free_bytes()
    for _ in range(3):
        once()
    lost_mib = (before - rig.device.free_bytes()) / 2**20
    measured(f"{lost_mib:+.1f} MiB after 3 rounds")
    assert lost_mib <= 8


def test_a_full_gpu_is_refused_with_advice_and_stays_usable(rig, measured):
    free = rig.device.free_bytes()
    with pytest.raises(DeviceMemoryError, match="fewer instances") as caught:
        rig.device.alloc_device(free)
    measured(str(caught.value)[:80])
    rig.on_device(1 << 20)
    assert rig.device.allocated.device_bytes == 1 << 20


STICKY = """
    import sys
    import torch
    from forebay_server.engines import open_device, open_engine
    from forebay_server.engines.clock import MonotonicClock
    from forebay_server.engines.errors import DeviceLostError

    device = open_device("cuda", clock=MonotonicClock())
    host, memory = device.alloc_host(64), device.alloc_device(64)
    stream, event = device.create_stream("compute"), device.create_event()
    with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
        torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")]  # a device-side assert
    stream.record(event)
    lost = 0
    for use in (event.sync, stream.sync, lambda: stream.copy_h2d(memory, host, 64), device.raise_if_lost, event.sync):
        try:
            use()
        except DeviceLostError as error:
            lost += 1
            print("lost:", error)
    for thing in (host, memory, stream, event):
        thing.close()
    sys.stdout.flush()
    import os
    os._exit(70 if lost == 5 else 1)
"""


def test_a_sticky_error_is_a_lost_device_everywhere_and_closing_still_works():
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STICKY)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 70, done.stdout[-2000:] + done.stderr[-2000:]
    assert "cudaErrorAssert" in done.stdout
