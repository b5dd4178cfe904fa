"""Many conversations, each from a seed of its own, with one server; after each the server must serve as before."""

import asyncio
import random

import grpc
import psutil

from forebay.wire import frames_pb2 as pb
from tests.support.fuzz import frames, inference, pictures
from tests.support.pictures import pictures as picture_model
from tests.support.real_server import open_message, row, simulated
from tests.support.serve_process import serve

KINDS = (frames.tensors, pictures.pictures, inference.unary, inference.stream, inference.control)
MESSAGES = 200
"""In one conversation."""
GUARD_S = 120.0
MEMORY_BYTES = 300 << 20  # more than at the start; a message is at most some kilobytes
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class ConversationError(AssertionError):
    """A conversation went wrong; the message has its seed."""


async def run(folder, seeds):
    """Run a conversation for each seed. Raises ConversationError with the first that went wrong."""
    repository = picture_model(simulated(folder))
    async with serve("--model-repository", repository) as server:
        address = await server.wait_ready()
        process = psutil.Process(server.process.pid)
        with grpc.insecure_channel(address, OWN_CONNECTION) as channel:
            probe(channel)
            before = process.memory_info().rss
            for seed in seeds:
                try:
                    async with asyncio.timeout(GUARD_S):
                        await asyncio.to_thread(converse, channel, seed)
                except Exception as error:
                    raise ConversationError(f"seed {seed}: {error!r}") from error
            assert process.memory_info().rss - before < MEMORY_BYTES
        assert await server.end() == 0, server.errors
    assert "Traceback" not in server.errors, server.errors


def converse(channel, seed):
    """Have the conversation of a seed, whose kind and messages follow from it, and see that the server is well."""
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not secret
    KINDS[seed % len(KINDS)](channel, rng, MESSAGES)
    probe(channel)


def probe(channel):
    """A right frame is answered rightly."""
    opened = pb.ClientMessage(open=open_message(stream_id="probe")).SerializeToString()
    frame = pb.ClientMessage(frame=pb.Frame(seq=1, payload=row(1))).SerializeToString()
    (result,), code, _ = frames.converse(channel, opened, [frame])
    assert (code, [tensor.data for tensor in result.tensors]) == (grpc.StatusCode.OK, [row(1)])
