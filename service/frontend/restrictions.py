"""Calls that need a header with a secret: Triton's restricted protocols, for every service on the port.

A setting such as `model-repository,shared-memory:admin=s3cret` lets calls of these categories through only with the
header `triton-grpc-protocol-admin: s3cret`; tritonclient takes headers with every call.

Thread: the event loop's.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc

from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.restricted import HEADER_PREFIX, REFUSAL

_INFERENCE = "/inference.GRPCInferenceService/"
CATEGORIES = MappingProxyType(
    {
        "health": (
            *(f"{_INFERENCE}{name}" for name in ("ServerLive", "ServerReady", "ModelReady")),
            *(f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")),
        ),
        "metadata": (f"{_INFERENCE}ServerMetadata", f"{_INFERENCE}ModelMetadata"),
        "inference": (
            f"{_INFERENCE}ModelInfer",
            f"{_INFERENCE}ModelStreamInfer",
            "/forebay.v1.FrameInference/Stream",
        ),
        "shared-memory": tuple(
            f"{_INFERENCE}{kind}SharedMemory{verb}"
            for kind in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        ),
        "model-config": (f"{_INFERENCE}ModelConfig",),
        "model-repository": tuple(f"{_INFERENCE}Repository{what}" for what in ("Index", "ModelLoad", "ModelUnload")),
        "statistics": (f"{_INFERENCE}ModelStatistics",),
        "trace": (f"{_INFERENCE}TraceSetting",),
        "logging": (f"{_INFERENCE}LogSettings",),
        "streams": ("/forebay.v1.StreamControl/ListStreams", "/forebay.v1.StreamControl/MoveStreams"),
        "reflection": tuple(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
        ),
    }
)
"""Category -> the calls in it."""


class Restrictions(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """See the module.

    Args:
        secrets: key and value by category, from `service.restricted.read_restrictions`.
        receptions: refuses calls.
    """

    def __init__(self, secrets: Mapping[str, tuple[str, str]], receptions: Receptions) -> None:
        self._receptions = receptions
        self._restricted = {
            call: (HEADER_PREFIX + key, value.encode())
            for category, (key, value) in secrets.items()
            for call in CATEGORIES[category]
        }

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any]"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Pass a call to its handler, or to one that refuses it."""
        handler = await continuation(handler_call_details)
        needed = self._restricted.get(handler_call_details.method)
        if needed is None or _brings(handler_call_details, *needed):
            return handler
        refuse = self._receptions.refusing(grpc.StatusCode.UNAVAILABLE, f"{REFUSAL} '{needed[0]}'")
        return grpc.stream_stream_rpc_method_handler(refuse)  # a call with one message is a stream of one


def _brings(details: grpc.HandlerCallDetails, header: str, secret: bytes) -> bool:
    # As bytes: text that is not ASCII cannot be compared, and gRPC gives values that are not UTF-8 as bytes.
    return any(
        key == header
        and hmac.compare_digest(value.encode(errors="surrogatepass") if isinstance(value, str) else value, secret)
        for key, value in details.invocation_metadata or ()
    )
