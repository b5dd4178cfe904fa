"""Forebay: the client library.

    import forebay

    with forebay.Client("127.0.0.1:8001") as client, client.stream("door", model="detector", encoding="bgr8") as stream:
        stream.send(frame)              # never blocks: the newest frame wins
        result = stream.receive()       # one result for every frame, in order; receive(timeout_s=1) waits at most 1 s

    found = client.infer("street.jpg", model="detector").detections    # one picture

`forebay.aio` has the same classes for asyncio. The service is elsewhere: `import forebay` imports neither the service,
an engine nor OpenCV, and not even gRPC before the first use of a client, so that `forebay.tune_process()` can come
first.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import forebay.aio as aio  # noqa: PLR0402  # `from forebay import aio` would import itself
    from forebay.client.detection import Box, Detection, Keypoint, Mask, RotatedBox, RunLengths
    from forebay.client.errors import (
        CallRefusedError,
        ForebayError,
        ForkedClientError,
        ProtocolError,
        ResultTimeoutError,
        SendTimeoutError,
        StreamClosedError,
        StreamRefusedError,
        UnreachableError,
    )
    from forebay.client.models import Model
    from forebay.client.options import Reconnection, Tls
    from forebay.client.result import (
        Classification,
        Opened,
        Result,
        Status,
        TensorSpec,
        Timings,
    )
    from forebay.client.statistics import Statistics
    from forebay.client.streams import OpenStream, StreamList
    from forebay.client.sync import Client, Stream
    from forebay.tuning import Tuning, tune_process

__version__ = "0.1.0"  # of the client and the server; pyproject.toml reads it here

_HOMES = {
    "Box": "forebay.client.detection",
    "Detection": "forebay.client.detection",
    "Keypoint": "forebay.client.detection",
    "Mask": "forebay.client.detection",
    "RotatedBox": "forebay.client.detection",
    "RunLengths": "forebay.client.detection",
    "CallRefusedError": "forebay.client.errors",
    "ForebayError": "forebay.client.errors",
    "ForkedClientError": "forebay.client.errors",
    "ProtocolError": "forebay.client.errors",
    "ResultTimeoutError": "forebay.client.errors",
    "SendTimeoutError": "forebay.client.errors",
    "StreamClosedError": "forebay.client.errors",
    "StreamRefusedError": "forebay.client.errors",
    "UnreachableError": "forebay.client.errors",
    "Model": "forebay.client.models",
    "Reconnection": "forebay.client.options",
    "Tls": "forebay.client.options",
    "Classification": "forebay.client.result",
    "Opened": "forebay.client.result",
    "Result": "forebay.client.result",
    "Status": "forebay.client.result",
    "TensorSpec": "forebay.client.result",
    "Timings": "forebay.client.result",
    "Statistics": "forebay.client.statistics",
    "OpenStream": "forebay.client.streams",
    "StreamList": "forebay.client.streams",
    "Client": "forebay.client.sync",
    "Stream": "forebay.client.sync",
    "Tuning": "forebay.tuning",
    "tune_process": "forebay.tuning",
}

__all__ = [
    "Box",
    "CallRefusedError",
    "Classification",
    "Client",
    "Detection",
    "ForebayError",
    "ForkedClientError",
    "Keypoint",
    "Mask",
    "Model",
    "OpenStream",
    "Opened",
    "ProtocolError",
    "Reconnection",
    "Result",
    "ResultTimeoutError",
    "RotatedBox",
    "RunLengths",
    "SendTimeoutError",
    "Statistics",
    "Status",
    "Stream",
    "StreamClosedError",
    "StreamList",
    "StreamRefusedError",
    "TensorSpec",
    "Timings",
    "Tls",
    "Tuning",
    "UnreachableError",
    "aio",
    "tune_process",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type of the name's value
    """Import the named attribute, and no other."""
    if name == "aio":
        return importlib.import_module("forebay.aio")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'forebay' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
