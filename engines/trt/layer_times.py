"""TensorRT's own layer times, gathered from a profiler that a context reports to."""

from typing import Any


def make_profiler(trt: Any) -> Any:  # noqa: ANN401 - the libraries have no stubs
    """Return a profiler with a dict `total_ms` by layer name."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        """Adds up reported times. A context with a profiler runs each enqueue to its end: never in service."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Called by the library for every layer of an execution."""
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return Profiler()
