"""Calls that concern the whole group: taken in one process, answered in another; over real pickles."""

import asyncio
import pickle

import grpc
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.control.rpc import OfLongMessage, OfPeer
from forebay_server.service.frontend.control.settings import SettingsRpcs
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.group.forwarded import MESSAGES, ForwardedRpcs, GroupRpcs
from forebay_server.service.group.messages import RpcCall


class Repository:
    """A group of RPCs of the kinds there are: at once, later, refused, failing."""

    def rpcs(self):
        return {
            "RepositoryIndex": (self.index, pb.RepositoryIndexRequest),
            "RepositoryModelLoad": (OfLongMessage(self.load), pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self.unload, pb.RepositoryModelUnloadRequest),
            "SystemSharedMemoryStatus": (OfPeer(self.status), pb.SystemSharedMemoryStatusRequest),
        }

    def index(self, request):
        raise InvalidRequestError("no such repository")

    async def load(self, request):
        await asyncio.sleep(0)
        if request.model_name == "bug":
            raise RuntimeError("/a/path that no client may see")
        if request.model_name == "gone":
            raise InferenceError(grpc.StatusCode.INTERNAL, "failed to load 'gone'")
        return pb.RepositoryModelLoadResponse()

    def unload(self, request):
        return pb.RepositoryModelUnloadResponse()

    def status(self, request, peer):
        raise AssertionError("shared memory belongs to a connection")


class Group:
    """Both processes on one loop."""

    def __init__(self):
        self.steps = []
        self.loaded = asyncio.Event()
        self.loaded.set()
        self.engine = GroupRpcs(self.loaded, Repository(), SettingsRpcs(None))
        self.forwarded = ForwardedRpcs(self._send, self._check, lambda: self.steps.append("before"))
        self.is_silent = False
        self.tasks = []

    def _check(self, method, request):
        if getattr(request, "model_name", "") == "refused":
            raise InferenceError(grpc.StatusCode.UNAVAILABLE, "not allowed here")

    def _send(self, call):
        self.steps.append(call.method)
        if not self.is_silent:
            self.tasks.append(asyncio.ensure_future(self._answer(pickle.dumps(call))))

    async def _answer(self, data):
        answer = await self.engine.answer(pickle.loads(data))  # noqa: S301 - as it travels
        self.forwarded.on_answer(pickle.loads(pickle.dumps(answer)))  # noqa: S301

    async def ask(self, method, request):
        rpc, kind = self.forwarded.rpcs()[method]
        assert isinstance(request, kind)
        return await (rpc.rpc if isinstance(rpc, OfLongMessage) else rpc)(request)


def test_every_forwarded_call_has_a_handler_and_its_messages():
    group = asyncio.run(made())
    assert set(group.forwarded.rpcs()) == set(MESSAGES)
    for method, (request, response) in MESSAGES.items():
        assert request.DESCRIPTOR.name == f"{method}Request"
        assert response.DESCRIPTOR.name == f"{method}Response"


async def made():
    return Group()


def test_answers_come_back_and_counts_go_first():
    async def run():
        group = Group()
        assert await group.ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="m")) == (
            pb.RepositoryModelUnloadResponse()
        )
        answer = await group.ask("LogSettings", pb.LogSettingsRequest())
        assert answer.settings["log_error"].bool_param
        assert group.steps == ["before", "RepositoryModelUnload", "before", "LogSettings"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("RepositoryIndex", pb.RepositoryIndexRequest(), grpc.StatusCode.INVALID_ARGUMENT, "no such repository"),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="gone"), grpc.StatusCode.INTERNAL, "'gone'"),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="bug"), grpc.StatusCode.INTERNAL, "internal"),
    ],
)
def test_a_refusal_comes_back_as_it_is_and_a_bug_is_masked(method, request_, code, words):
    async def run():
        with pytest.raises(InferenceError) as caught:
            await Group().ask(method, request_)
        assert caught.value.code is code
        assert words in caught.value.message
        assert "/a/path" not in caught.value.message

    asyncio.run(run())


def test_loads_and_unloads_wait_for_the_models_of_the_start_and_other_calls_do_not():
    async def run():
        group = Group()
        group.loaded.clear()
        waiting = [
            asyncio.ensure_future(group.ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))),
            asyncio.ensure_future(group.ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="m"))),
        ]
        await group.ask("LogSettings", pb.LogSettingsRequest())
        assert not any(each.done() for each in waiting)
        group.loaded.set()
        assert await waiting[0] == pb.RepositoryModelLoadResponse()
        assert await waiting[1] == pb.RepositoryModelUnloadResponse()

    asyncio.run(run())


def test_a_call_that_the_settings_refuse_does_not_travel():
    async def run():
        group = Group()
        with pytest.raises(InferenceError, match="not allowed here"):
            await group.ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="refused"))
        assert group.steps == []

    asyncio.run(run())


def test_calls_at_once_get_their_own_answers():
    async def run():
        group = Group()
        names = ["a", "gone", "b", "gone", "c"]
        asked = [
            asyncio.ensure_future(group.ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name)))
            for name in names
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(answer, InferenceError) for answer in answers] == [name == "gone" for name in names]

    asyncio.run(run())


def test_a_client_that_leaves_waits_for_nothing():
    async def run():
        group = Group()
        group.is_silent = True
        asked = asyncio.ensure_future(group.ask("RepositoryIndex", pb.RepositoryIndexRequest()))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        await group._answer(pickle.dumps(RpcCall(1, "RepositoryModelUnload", b"")))  # too late

    asyncio.run(run())
