"""Calls that concern the whole group: a front-end process takes them, the engine process answers them.

They are the calls of the Open Inference Protocol that read or change what all processes share: the repository, the
statistics, the settings; and those of forebay.v1.StreamControl, about the streams of all processes. Their handlers are
those of a server without front-end processes (`service.frontend.control`); only the way to them is longer. A front-end
process answers calls itself whose answer it knows (metadata, readiness, configuration), and shared memory belongs to
the connection that registered it.

Thread: the event loop's of either process.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from forebay.wire import streams_pb2
from forebay_server.service.frontend.control.rpc import OfLongMessage, OfPeer, Rpc, RpcGroup
from forebay_server.service.frontend.open_inference.errors import InferenceError, answer_to
from forebay_server.service.group.messages import RpcAnswer, RpcCall

MESSAGES: Mapping[str, tuple[Any, Any]] = {
    "RepositoryIndex": (pb.RepositoryIndexRequest, pb.RepositoryIndexResponse),
    "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse),
    "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse),
    "ModelStatistics": (pb.ModelStatisticsRequest, pb.ModelStatisticsResponse),
    "TraceSetting": (pb.TraceSettingRequest, pb.TraceSettingResponse),
    "LogSettings": (pb.LogSettingsRequest, pb.LogSettingsResponse),
}
"""Request and response of each forwarded call of the Open Inference Protocol."""
STREAM_MESSAGES: Mapping[str, tuple[Any, Any]] = {
    "ListStreams": (streams_pb2.ListStreamsRequest, streams_pb2.ListStreamsResponse),
    "MoveStreams": (streams_pb2.MoveStreamsRequest, streams_pb2.MoveStreamsResponse),
}
"""The same of forebay.v1.StreamControl."""
_EVERY = {**MESSAGES, **STREAM_MESSAGES}
LOST = "the process that answers this call has ended and is started anew: try again in a moment"
LONG = frozenset({"RepositoryModelLoad"})  # it may bring the files of a model
LED = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
"""Calls that all engine processes do."""


class ForwardedRpcs:
    """The front-end process's part: calls that go to the engine process. Itself an `RpcGroup`, of Open Inference.

    Args:
        send: sends a message to the engine process.
        check: called with the name and the request of each call; raises InferenceError where the settings refuse it,
            so that no long message travels for nothing.
        before: called before each call is sent: this process's counts have to be there before a client asks for them.
    """

    def __init__(
        self, send: Callable[[RpcCall], None], check: Callable[[str, Any], None], before: Callable[[], None]
    ) -> None:
        self._send = send
        self._check = check
        self._before = before
        self._next_id = itertools.count(1).__next__
        self._waiting: dict[int, asyncio.Future[RpcAnswer]] = {}

    def rpcs(self) -> dict[str, tuple[Rpc | OfPeer | OfLongMessage, Any]]:
        """Return the RPCs by name."""
        return self._asking(MESSAGES)

    @property
    def streams(self) -> RpcGroup:
        """The calls of forebay.v1.StreamControl."""
        return _Asking(self._asking(STREAM_MESSAGES))

    def on_answer(self, answer: RpcAnswer) -> None:
        """Hand an answer to the call that waits for it, unless its client has gone."""
        future = self._waiting.pop(answer.id, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _asking(self, messages: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Rpc | OfPeer | OfLongMessage, Any]]:
        asks = {name: partial(self._ask, name) for name in messages}
        return {name: (OfLongMessage(ask) if name in LONG else ask, messages[name][0]) for name, ask in asks.items()}

    def lost(self) -> None:
        """The engine process that answers has gone: end every call that waits."""
        for call in list(self._waiting):
            self.on_answer(RpcAnswer(call, grpc.StatusCode.UNAVAILABLE.name, LOST))

    async def _ask(self, method: str, request: Any) -> Any:  # noqa: ANN401 - messages
        self._check(method, request)
        call = RpcCall(self._next_id(), method, request.SerializeToString())
        answered: asyncio.Future[RpcAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[call.id] = answered
        try:
            self._before()
            self._send(call)
            answer = await answered
        finally:
            self._waiting.pop(call.id, None)
        if answer.code != grpc.StatusCode.OK.name:
            raise InferenceError(grpc.StatusCode[answer.code], answer.details)
        return _EVERY[method][1].FromString(answer.response)


class _Asking:
    """Implements `RpcGroup`."""

    def __init__(self, rpcs: Mapping[str, tuple[Rpc | OfPeer | OfLongMessage, Any]]) -> None:
        self._rpcs = rpcs

    def rpcs(self) -> Mapping[str, tuple[Rpc | OfPeer | OfLongMessage, Any]]:
        """Return the RPCs by name."""
        return self._rpcs


class GroupRpcs:
    """The engine process's part: answers forwarded calls.

    Args:
        loaded: set once the models of the start are loaded. A process that is started anew gets loads and unloads
            before that; an unload would give a load of the start up.
        groups: whose RPCs `MESSAGES` and `STREAM_MESSAGES` name.
    """

    def __init__(self, loaded: asyncio.Event, *groups: RpcGroup) -> None:
        self._loaded = loaded
        self._rpcs: dict[str, Rpc] = {}
        for group in groups:
            for name, (rpc, _) in group.rpcs().items():
                if isinstance(rpc, OfLongMessage):
                    self._rpcs[name] = rpc.rpc
                elif not isinstance(rpc, OfPeer):
                    self._rpcs[name] = rpc

    async def answer(self, call: RpcCall) -> RpcAnswer:
        """Return the answer to a call. No mistake of a client raises."""
        if call.method in LED:
            await self._loaded.wait()
        try:
            response = self._rpcs[call.method](_EVERY[call.method][0].FromString(call.request))
            if isinstance(response, Awaitable):
                response = await response
            return RpcAnswer(call.id, grpc.StatusCode.OK.name, response=response.SerializeToString())
        except Exception as error:  # noqa: BLE001 - any error ends this call alone
            status = answer_to(error)
            return RpcAnswer(call.id, status.code.name, status.message)
