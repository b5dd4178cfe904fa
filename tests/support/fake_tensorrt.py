"""A stand-in for the runtime side of TensorRT that runs plans on the simulated device, under its race checker.

A plan is JSON; an execution reads its inputs, writes its outputs (input 0 doubled) and uses the activation memory that
the context was given, all declared to the checker. That the real library has the names used here is checked by
tests/heavy/vendor/test_api_conformance.py.
"""

import enum
import itertools
import json
import types

import numpy as np

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_simulated import SimulatedDevice
from forebay_server.engines.errors import ExecutionError
from forebay_server.engines.simulated.stream import byte_ranges
from forebay_server.engines.trt.manifest import Manifest, sha256, write

MAX_ROWS = 8


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW4 = 1


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 1


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3


class Machine:
    """The meaning of handles and addresses, for one test."""

    def __init__(self):
        self.buffers, self.streams = {}, {}


machine = Machine()


class FakeGpu(SimulatedDevice):
    """The simulated device, with handles and addresses that the stand-in can resolve, and capture."""

    def __init__(self, **settings):
        super().__init__(clock=MonotonicClock(), **settings)

    def alloc_device(self, nbytes, mirror=None):
        buffer = super().alloc_device(nbytes, mirror)
        machine.buffers[buffer.address] = buffer
        return buffer

    def create_stream(self, name, **options):
        return Stream(super().create_stream(name, **options))


class Stream:
    """A simulated stream with a handle, and with CUDA's way of capturing."""

    handles = itertools.count(1)

    def __init__(self, inner):
        self._inner, self.handle, self.captured = inner, next(self.handles), None
        machine.streams[self.handle] = self

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def capture(self, enqueue):
        self.captured = []
        try:
            enqueue()
            work, self.captured = self.captured, None
        except ExecutionError:
            self.captured = None
            return None
        return Graph(work)

    def run(self, work):
        if self.captured is not None:
            self.captured.append(work)
        else:
            work(self._inner)


class Graph:
    def __init__(self, work):
        self._work, self.is_closed = work, False

    def launch(self, stream):
        for each in self._work:
            stream.run(each)

    def close(self):
        self.is_closed = True


def plan_bytes(**settings):
    defaults = {
        "inputs": {"x": [-1, 4]},
        "outputs": {"y": [-1, 4]},
        "profiles": [[1, 1, 1], [1, MAX_ROWS, MAX_ROWS]],
        "dtype": "FLOAT",
        "location": "DEVICE",
        "format": "LINEAR",
        "activation_bytes": 1024,
        "fail": "",
        "resolved": {},
        "unwritten": 0,  # floats at the end of every output
    }
    return json.dumps(defaults | settings).encode()


def write_plan(folder, *, manifest=None, **settings):
    """Write a plan and its manifest; returns its path."""
    data = plan_bytes(**settings)
    path = folder / "model.plan"
    path.write_bytes(data)
    fields = {
        "plan_sha256": sha256(data),
        "library": "tensorrt",
        "version": FakeTensorrt.__version__,
        "device": "simulated",
        "compute_capability": "",
        "compatibility": "none",
        "is_version_compatible": False,
        "source_name": "model.onnx",
        "source_sha256": "",
        "precision": "fp32",
    }
    write(Manifest(**(fields | (manifest or {}))), path)
    return path


class IProfiler:
    pass


class Runtime:
    def __init__(self, logger):
        self._logger, self.engine_host_code_allowed = logger, None

    def deserialize_cuda_engine(self, data):
        try:
            return Engine(json.loads(data), self._logger)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed:\n magicTag")
            return None


class Engine:
    def __init__(self, plan, logger):
        self.plan, self.logger = plan, logger
        self._names = [*plan["inputs"], *plan["outputs"]]
        self.num_io_tensors = len(self._names)
        self.num_optimization_profiles = len(plan["profiles"])

    def get_tensor_name(self, index):
        return self._names[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.plan["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return tuple((self.plan["inputs"] | self.plan["outputs"])[name])

    def get_tensor_dtype(self, _name):
        return DataType[self.plan["dtype"]]

    def get_tensor_format(self, _name):
        return TensorFormat[self.plan["format"]]

    def get_tensor_location(self, _name):
        return TensorLocation[self.plan["location"]]

    def get_tensor_profile_shape(self, name, index):
        return [(rows, *self.plan["inputs"][name][1:]) for rows in self.plan["profiles"][index]]

    def get_device_memory_size_for_profile_v2(self, _index):
        return self.plan["activation_bytes"]

    def create_execution_context(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return None if self.plan["fail"] == "context" else Context(self)


class Context:
    def __init__(self, engine):
        self._engine, self._addresses, self._shapes = engine, {}, {}
        self._memory, self._profile, self.profiler = None, 0, None

    def _is_failing(self, what):
        if self._engine.plan["fail"] == what:
            self._engine.logger.log(ILogger.Severity.ERROR, " ".join((what, "failed, as asked")))
            return True
        return False

    def set_device_memory(self, address, size):
        assert size == self._engine.plan["activation_bytes"]
        assert address % 256 == 0 or machine.buffers[address].nbytes >= size
        self._memory = address

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return not self._is_failing("address")

    def set_optimization_profile_async(self, index, stream):
        assert stream in machine.streams
        self._profile, self._shapes = index, {}
        return not self._is_failing("profile")

    def set_input_shape(self, name, shape):
        low, _best, high = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = shape
        return low[0] <= shape[0] <= high[0] and not self._is_failing("shape")

    def infer_shapes(self):
        if self._is_failing("infer"):
            raise RuntimeError("inconsistent shapes")
        return [name for name in self._engine.plan["inputs"] if name not in self._shapes]

    def get_tensor_shape(self, name):
        rows = next(iter(self._shapes.values()))[0]
        plan = self._engine.plan
        inner = plan["resolved"].get(name, (plan["inputs"] | plan["outputs"])[name][1:])
        return (rows, *inner)

    def execute_async_v3(self, stream):
        if self._is_failing("execute") or (
            machine.streams[stream].captured is not None and self._is_failing("capture")
        ):
            return False
        rows = next(iter(self._shapes.values()))[0]
        plan = self._engine.plan
        inputs = [machine.buffers[self._addresses[name]] for name in plan["inputs"]]
        outputs = [machine.buffers[self._addresses[name]] for name in plan["outputs"]]
        sizes = {name: rows * int(np.prod(dims[1:])) * 4 for name, dims in (plan["inputs"] | plan["outputs"]).items()}

        def run():
            for source, target, name in zip(inputs, outputs, plan["outputs"], strict=False):
                nbytes = sizes[name] - 4 * plan["unwritten"]
                target.memory[:nbytes].view(np.float32)[:] = source.memory[:nbytes].view(np.float32) * 2

        def work(inner):
            inner.execute(
                reads=byte_ranges(inputs, [sizes[name] for name in plan["inputs"]]),
                writes=[
                    *byte_ranges(outputs, [sizes[name] for name in plan["outputs"]]),
                    machine.buffers[self._memory],
                ],
                run=run,
                label=f"plan, {rows} rows",
            )

        machine.streams[stream].run(work)
        if self.profiler is not None:
            self.profiler.report_layer_time("double", 0.5)
            self.profiler.report_layer_time("cast", 0.25)
        return True


class FakeTensorrt(types.ModuleType):
    """The module `tensorrt`."""

    __version__ = "10.16.1.11"
    ILogger, IProfiler, Runtime = ILogger, IProfiler, Runtime
    TensorIOMode, TensorLocation, TensorFormat, DataType = TensorIOMode, TensorLocation, TensorFormat, DataType
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
