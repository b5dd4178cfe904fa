"""Drives a device or an engine the way the pipeline does: three device streams, events between them, fixed buffers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from forebay_server.engines import open_engine
from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.clock import Clock, MonotonicClock
from forebay_server.engines.device import Device
from forebay_server.engines.engine import Engine, SlotBuffers, TensorSpec
from tests.support.dirt import spread

T = TypeVar("T")


class Rig:
    """Makes things of one device, and closes them in reverse order."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._closers: list[Callable[[], None]] = []

    def keep(self, thing: T) -> T:
        """Close `thing` at the end."""
        self._closers.append(thing.close)
        return thing

    def open_engine(
        self,
        backend: str,
        model_path: Path | None,
        *,
        options: Mapping[str, str] | None = None,
        max_batch_size: int | None = None,
        clock: Clock | None = None,
        changes: ModelChanges | None = None,
    ) -> Engine:
        """An engine on this device, on its own clock if none is given."""
        return self.keep(
            open_engine(
                backend,
                model_path=model_path,
                device=self.device,
                clock=clock or MonotonicClock(),
                options=options or {},
                max_batch_size=max_batch_size,
                changes=changes or ModelChanges(),
            )
        )

    def host(self, nbytes: int):
        return self.keep(self.device.alloc_host(nbytes))

    def on_device(self, nbytes: int, mirror=None):
        return self.keep(self.device.alloc_device(nbytes, mirror))

    def stream(self, name: str = "test"):
        return self.keep(self.device.create_stream(name))

    def event(self):
        return self.keep(self.device.create_event())

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()


@contextmanager
def rig_of(device: Device):
    """A rig that synchronises nothing itself: a test that leaves work outstanding closes over it."""
    rig = Rig(device)
    try:
        yield rig
    finally:
        rig.close()
        device.close()


class BoundSlot:
    """One slot of an engine with its host buffers, streams and events."""

    def __init__(self, rig: Rig, engine: Engine, index: int) -> None:
        rows = engine.specs.max_batch_size
        self.engine, self.index = engine, index
        self.host_in = [rig.host(spec.row_bytes * rows) for spec in engine.specs.inputs]
        self.host_out = [rig.host(spec.row_bytes * rows) for spec in engine.specs.outputs]
        inputs = tuple(rig.on_device(buffer.nbytes, buffer) for buffer in self.host_in)
        outputs = tuple(rig.on_device(buffer.nbytes, buffer) for buffer in self.host_out)
        self.buffers = SlotBuffers(index, inputs, outputs)
        self.h2d, self.compute, self.d2h = (rig.stream(f"{name} {index}") for name in ("h2d", "compute", "d2h"))
        self.uploaded, self.executed, self.downloaded = rig.event(), rig.event(), rig.event()
        engine.bind(self.buffers)

    def run(self, inputs: Sequence[np.ndarray], dirt: int | None = None) -> list[np.ndarray]:
        """Send `inputs`, each of shape (batch_size, ...), through the device; returns copies of the outputs."""
        self.begin(inputs, dirt)
        return self.end(len(inputs[0]) if self.engine.specs.has_batch_dimension else 1)

    def begin(self, inputs: Sequence[np.ndarray], dirt: int | None = None) -> None:
        """Upload `inputs` and enqueue their execution, if `dirt` is given over memory that is full of it."""
        batch_size = len(inputs[0]) if self.engine.specs.has_batch_dimension else 1
        for host, device, values in zip(self.host_in, self.buffers.inputs, inputs, strict=True):
            host.write_view()[: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self.h2d.copy_h2d(device, host, values.nbytes)
        self.h2d.record(self.uploaded)
        self.compute.wait(self.uploaded)
        if dirt is not None:
            beyond = [values.nbytes for values in inputs]
            spread(self.compute, dirt, self.host_out, self.buffers.outputs, self.buffers.inputs, beyond)
        self.engine.enqueue(self.index, batch_size, self.compute)
        self.compute.record(self.executed)

    def end(self, batch_size: int) -> list[np.ndarray]:
        """Download the outputs of the begun run; return copies of them."""
        self.d2h.wait(self.executed)
        specs = self.engine.specs.outputs
        results = self.engine.outputs(self.index, batch_size)
        for spec, host, device in zip(specs, self.host_out, results, strict=True):
            self.d2h.copy_d2h(host, device, spec.row_bytes * batch_size)
        self.d2h.record(self.downloaded)
        self.downloaded.sync()
        pairs = zip(specs, self.host_out, strict=True)
        return [self._rows(spec, host.read_view(), batch_size) for spec, host in pairs]

    def _rows(self, spec: TensorSpec, view: np.ndarray, batch_size: int) -> np.ndarray:
        flat = view[: spec.row_bytes * batch_size].view(spec.dtype).copy()
        return flat.reshape((batch_size, *spec.shape) if self.engine.specs.has_batch_dimension else spec.shape)


def random_rows(spec: TensorSpec, batch_size: int | None, seed: int) -> np.ndarray:
    """Random values of a tensor, (batch_size, *shape), or shape alone where `batch_size` is None."""
    shape = spec.shape if batch_size is None else (batch_size, *spec.shape)
    random = np.random.default_rng(seed)
    if spec.dtype.kind == "f":
        return random.normal(size=shape).astype(spec.dtype)
    if spec.dtype.kind == "b":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.integers(0, 100, shape).astype(spec.dtype)
