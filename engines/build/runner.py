"""Runs any model file on any device, one batch at a time, for verification and profiles: a pipeline of one slot."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines import open_device, open_engine
from forebay_server.engines.backends import BACKENDS
from forebay_server.engines.clock import Clock, MonotonicClock
from forebay_server.engines.engine import EngineSpecs, SlotBuffers
from forebay_server.engines.errors import ModelFileError

BACKEND_BY_SUFFIX = {Path(file).suffix: name for name, backend in BACKENDS.items() for file in backend.filenames}


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Device time of one batch."""

    h2d_ns: int
    execute_ns: int
    d2h_ns: int


class ModelRunner:
    """One model on one device. Use it in `with`. Thread: one.

    Raises:
        ModelFileError, BackendUnavailableError: as open_engine does; or a name that no backend reads.
    """

    def __init__(
        self,
        path: Path,
        device_kind: str | None = None,
        *,
        options: Mapping[str, str] | None = None,
        max_batch_size: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        backend = BACKEND_BY_SUFFIX.get(path.suffix)
        if backend is None:
            raise ModelFileError(f"{path}: not a model: name it {', '.join(BACKEND_BY_SUFFIX)}")
        clock = clock or MonotonicClock()
        self.backend = backend
        self.device = open_device(device_kind or ("cuda" if BACKENDS[backend].gpus == "always" else "cpu"), clock=clock)
        self.engine = open_engine(
            backend,
            model_path=path,
            device=self.device,
            clock=clock,
            options=options or {},
            max_batch_size=max_batch_size,
        )
        rows = self.specs.max_batch_size
        device = self.device
        self._host_inputs = [device.alloc_host(spec.row_bytes * rows) for spec in self.specs.inputs]
        self._host_outputs = [device.alloc_host(spec.row_bytes * rows) for spec in self.specs.outputs]
        self._slot = SlotBuffers(
            0,
            tuple(device.alloc_device(host.nbytes, host) for host in self._host_inputs),
            tuple(device.alloc_device(host.nbytes, host) for host in self._host_outputs),
        )
        self._stream = device.create_stream("runner")
        self._events = [device.create_event() for _ in range(4)]
        self.engine.bind(self._slot)

    @property
    def specs(self) -> EngineSpecs:
        """Of the model."""
        return self.engine.specs

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do all lazy work."""
        self.engine.warm_up(tuple(batch_sizes), self._stream)

    def run(self, inputs: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], DeviceTimes]:
        """Run one batch, in the order of `specs.inputs`; return its outputs, as copies, and its stage times."""
        rows = len(inputs[0]) if self.specs.has_batch_dimension else 1
        stream, events = self._stream, self._events
        for host, values in zip(self._host_inputs, inputs, strict=True):
            host.write_view()[: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        stream.record(events[0])
        for host, target, values in zip(self._host_inputs, self._slot.inputs, inputs, strict=True):
            stream.copy_h2d(target, host, values.nbytes)
        stream.record(events[1])
        self.engine.enqueue(0, rows, stream)
        stream.record(events[2])
        sources = self.engine.outputs(0, rows)
        for spec, host, source in zip(self.specs.outputs, self._host_outputs, sources, strict=True):
            stream.copy_d2h(host, source, spec.row_bytes * rows)
        stream.record(events[3])
        events[3].sync()
        times = [later.elapsed_ns(earlier) for earlier, later in itertools.pairwise(events)]
        return [self._output(index, rows) for index in range(len(self.specs.outputs))], DeviceTimes(*times)

    def layer_times(self, batch_size: int, runs: int) -> list[tuple[str, float]]:
        """Return layers with their mean milliseconds where the engine reports them, else nothing."""
        measure = getattr(self.engine, "layer_times", None)
        times: list[tuple[str, float]] = measure(0, batch_size, self._stream, runs) if measure is not None else []
        return times

    def _output(self, index: int, rows: int) -> NDArray[Any]:
        spec = self.specs.outputs[index]
        flat = np.array(self._host_outputs[index].read_view()[: spec.row_bytes * rows]).view(spec.dtype)
        return flat.reshape((rows, *spec.shape) if self.specs.has_batch_dimension else spec.shape)

    def close(self) -> None:
        """Free everything."""
        self._stream.sync()
        self.engine.close()
        for event in self._events:
            event.close()
        self._stream.close()
        for device_buffer in (*self._slot.inputs, *self._slot.outputs):
            device_buffer.close()
        for host_buffer in (*self._host_inputs, *self._host_outputs):
            host_buffer.close()
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
