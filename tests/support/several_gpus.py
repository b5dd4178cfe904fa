"""Several GPUs that are not there, and plans that run on them: simulated under one race checker, or CUDA's stand-in.

A plan doubles rows of 16 floats (tests.support.fake_tensorrt).
"""

import sys
import threading

import numpy as np

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_simulated import Machine
from forebay_server.engines.trt import library
from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file
from forebay_server.service.models.opening import open_version
from forebay_server.service.models.repository import Repository
from tests.support import fake_tensorrt
from tests.support.fake_tensorrt import FakeGpu, FakeTensorrt, write_plan
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import ROW_BYTES
from tests.support.version import Workshop

OPTIONS = ("on_mismatch", "ignore"), ("cuda_graphs", "off")


def install_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt("tensorrt"))
    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(fake_tensorrt, "machine", fake_tensorrt.Machine())


def doubling(root, groups, name="doubling"):
    """Add a plan with these instance groups to the repository `root`, and return `root`."""
    (root / name / "1").mkdir(parents=True)
    write_plan(root / name / "1", inputs={"x": [-1, ROW_BYTES // 4]}, outputs={"y": [-1, ROW_BYTES // 4]})
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in OPTIONS]
    (root / name / "config.pbtxt").write_text("\n".join(['backend: "tensorrt"', groups, *lines]))
    return root


class GpuWorkshop(Workshop):
    """Opens plans on the GPUs that `open_gpu(index)` gives."""

    def __init__(self, root, open_gpu):
        super().__init__(root)
        self._open_gpu = open_gpu

    def _open_device(self, kind, clock):
        name, _, index = kind.partition(":")
        assert name == "cuda"
        self.devices.append(self._open_gpu(int(index)))
        return self.devices[-1]

    def open(self, name="doubling"):
        entry = Repository([self._root]).model(name)
        description = describe(entry)
        self.versions.append(open_version(description, "1", model_file(entry, 1, description), self.context()))
        return self.versions[-1]

    def check(self, requests):
        """Every request has one completion with its own row, doubled."""
        self.answers.wait_for(len(requests))
        completed = [completion.request.id for completion in self.answers.completions]
        assert sorted(completed) == sorted(request.id for request in requests)
        for completion in self.answers.completions:
            assert completion.error is None
            row = np.full((1, ROW_BYTES), completion.request.id % 251, np.uint8)
            np.testing.assert_array_equal(completion.outputs[0], row.view(np.float32) * 2)


class Meeting:
    """Lets executions begin only when every expected GPU is about to begin one: none gets all the batches."""

    def __init__(self):
        self._missing = set()
        self._changed = threading.Condition()

    def expect(self, *gpus):
        self._missing.update(gpus)

    def arrive(self, gpu):
        with self._changed:
            self._missing.discard(gpu)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: not self._missing, HANG_GUARD_S)


def simulated_gpus(count, meeting=None):
    """Return a function that opens GPUs of one simulated machine."""
    machine, met = Machine(count), meeting or Meeting()

    class Gpu(FakeGpu):
        def create_stream(self, name, **options):
            stream = super().create_stream(name, **options)
            run, index = stream.run, int(self.name.partition(":")[2] or 0)
            stream.run = lambda work: (met.arrive(index), run(work))
            return stream

    return lambda index: Gpu(index=index, machine=machine)


class _Stream:
    """Runs work that the plans' stand-in enqueues on a stream of CUDA's stand-in: at once."""

    captured = None

    def __init__(self, gpu, meeting):
        self._gpu, self._meeting = gpu, meeting

    def run(self, work):
        self._meeting.arrive(self._gpu)
        work(self)

    def execute(self, *, run, **_):
        run()


class _Memory:
    """Memory of CUDA's stand-in that a plan reads and writes."""

    def __init__(self, allocation):
        self.nbytes, self.memory = allocation.nbytes, np.ctypeslib.as_array(allocation.bytes)


def fake_cuda_gpus(runtime, meeting=None):
    """Return a function that opens GPUs of CUDA's stand-in, which is installed."""
    from forebay_server.engines.device_cuda import CudaDevice

    met = meeting or Meeting()

    class Gpu(CudaDevice):
        def alloc_device(self, nbytes, mirror=None):
            buffer = super().alloc_device(nbytes, mirror)
            fake_tensorrt.machine.buffers[buffer.address] = _Memory(runtime.memory[buffer.address])
            return buffer

        def create_stream(self, name, **options):
            stream = super().create_stream(name, **options)
            fake_tensorrt.machine.streams[stream.handle] = _Stream(self.index, met)
            return stream

    return lambda index: Gpu(clock=MonotonicClock(), index=index)
