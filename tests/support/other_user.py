"""A client that another user runs: a separate process, which drops its rights before it connects.

`client_of` starts it. Run as a script, `ADDRESS UID`, it reads calls and prints answers, each a line.
"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.guard import HANG_GUARD_S

SOMEBODY, SOMEBODY_ELSE = 54321, 54322  # numbers that no account has
ROOT = Path(__file__).parents[2]
WHOLE_NAMESPACE = ["0", "0", str(2**32 - 1)]
NEEDS_ROOT = pytest.mark.skipif(
    os.getuid() != 0 or Path("/proc/self/uid_map").read_text().split() != WHOLE_NAMESPACE,
    reason="only root of the machine can start clients of every user",
)


class OtherUser:
    """The test's side of one such client."""

    def __init__(self, process):
        self._process = process

    async def call(self, method, **fields):
        """Code and message of a call, or OK and the answer as a dictionary."""
        self._process.stdin.write(json.dumps([method, fields]).encode() + b"\n")
        await self._process.stdin.drain()
        code, answer = json.loads(await asyncio.wait_for(self._process.stdout.readline(), HANG_GUARD_S))
        return code, answer

    async def register(self, name, key, byte_size=4096):
        return await self.call("SystemSharedMemoryRegister", name=name, key=key, byteSize=byte_size)

    async def regions(self):
        code, answer = await self.call("SystemSharedMemoryStatus")
        assert code == "OK"
        return sorted(answer.get("regions", {}))

    async def infer(self, request):
        from google.protobuf import json_format

        return await self.call("ModelInfer", **json_format.MessageToDict(request))


@asynccontextmanager
async def client_of(address, uid):
    """A client that user `uid` runs, connected."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.other_user",
        address,
        str(uid),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        user = OtherUser(process)
        assert (await user.call("ServerLive"))[0] == "OK"
        yield user
    finally:
        process.stdin.close()
        await process.wait()


def main(address, uid):
    import encodings.idna  # noqa: F401 - nothing can be imported once the rights are gone

    import grpc
    from google.protobuf import json_format

    from forebay.wire import inference_pb2 as pb

    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    with grpc.insecure_channel(address) as channel:
        for line in sys.stdin:
            method, fields = json.loads(line)
            call = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(pb, f"{method}Response").FromString,
            )
            try:
                answer = call(json_format.ParseDict(fields, getattr(pb, f"{method}Request")()), timeout=HANG_GUARD_S)
                told = ("OK", json_format.MessageToDict(answer))
            except grpc.RpcError as error:
                told = (error.code().name, error.details())
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
