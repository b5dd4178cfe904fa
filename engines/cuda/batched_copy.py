"""Many copies in one call, where driver and binding support it.

Reason: the binding releases the interpreter's lock around every call, and under load each call waits to get it back. On
an H100's host 32 uploads next to a busy thread took the enqueuing thread 31 times as long as one call for all; alone
1.8 to 2.4 times (docs/gpu.md). From two copies on it is never much slower.

Source: cudaMemcpyBatchAsync, CUDA runtime API 13; the form of CUDA 12.8 has one argument more and is not used.
"""

from forebay_server.engines.cuda.calls import check, runtime

FIRST_VERSION = 13000


class BatchedCopy:
    """Enqueues copies from pinned memory to the device. Thread: any."""

    def __init__(self) -> None:
        attributes = runtime.cudaMemcpyAttributes()
        attributes.srcAccessOrder = runtime.cudaMemcpySrcAccessOrder.cudaMemcpySrcAccessOrderStream
        self._attributes = [attributes]

    def enqueue(self, targets: list[int], sources: list[int], sizes: list[int], stream: object) -> None:
        """Enqueue `sizes[i]` bytes, at least 1, from `sources[i]` to `targets[i]`; in no order among themselves."""
        count = len(sizes)
        result = runtime.cudaMemcpyBatchAsync(targets, sources, sizes, count, self._attributes, [0], 1, stream)
        check(result, "cudaMemcpyBatchAsync")


def batched_copy() -> BatchedCopy | None:
    """Return an object that enqueues many copies at once; None where only single copies are supported."""
    versions = (runtime.cudaDriverGetVersion, runtime.cudaRuntimeGetVersion)
    if any(int(check(version(), "cudaDriverGetVersion")) < FIRST_VERSION for version in versions):
        return None
    return BatchedCopy() if hasattr(runtime, "cudaMemcpyBatchAsync") else None
