"""Two engine processes of which one decodes JPEG files on its device: they serve one version, frame by frame."""

import asyncio
import contextlib
import os
import socket

import grpc
import numpy as np

from forebay.wire import frames_pb2 as pb
from forebay_server.service.group.controls import Controls
from forebay_server.service.group.engine_server import EngineServer
from forebay_server.service.group.front_end_server import FrontEndServer
from forebay_server.service.group.group_settings import engine_settings, front_end_settings
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.group.parent import reserved
from forebay_server.service.models.instances import Part
from forebay_server.service.settings import ServeSettings
from tests.rpc.test_device_pictures import PICTURE, DecodingDevices, picture_of, repository
from tests.support.device_pictures import pixels_of, row_of_file
from tests.support.jpegs import encoded
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, SimulatedDevices, eventually

FRAMES = 12


@contextlib.asynccontextmanager
async def group(root, *devices):
    """A front-end process before an engine process for each of `devices`, on this loop: the servers of both."""
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(reserved("127.0.0.1:0"))
        count = len(devices)
        settings = ServeSettings(
            address=address, model_repository=(root,), rehearse_loads=False, admin_address="", engines=count
        )
        controls, file = Controls(), MemoryFile.create("permits", PAGE_BYTES)
        stack.callback(controls.close)
        stack.callback(file.close)
        engines = []
        for index, open_device in enumerate(devices):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            own, permits = engine_settings(settings, 1, index), MemoryFile.attach(os.dup(file.fd))
            engines.append(
                EngineServer(own, theirs, open_device=open_device, part=Part(index, count), permits_file=permits)
            )
            with controls.adding_engine(index) as connect:
                connect(ours)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        front = FrontEndServer(front_end_settings(settings, 1, address), 0, (theirs,))
        with controls.adding_front_end(0) as connect:
            connect(ours)
        await asyncio.gather(front.start(), *(engine.start() for engine in engines))
        try:
            yield front, engines, address
        finally:
            for each in (front, *engines):
                each.stop()
            assert await asyncio.gather(front.close(), *(engine.close() for engine in engines)) == [0] * (1 + count)


@on_loop
async def test_frames_are_decoded_where_their_engine_process_says(tmp_path):
    file = encoded(pixels_of(64, 48))
    async with group(repository(tmp_path), SimulatedDevices(), DecodingDevices()) as (front, engines, address):
        await eventually(lambda: len(front.engine.registry.find("camera", "").members) == 2)
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stream = RawStream(channel)
            await stream.send_open(model="camera", encoding=pb.ENCODING_JPEG)
            await stream.receive()
            for seq in range(FRAMES):
                await stream.send(seq, file)
            await stream.half_close()
            results = await stream.results()
        assert [result.seq for result in results] == list(range(FRAMES))
        for result in results:
            assert result.status.code == pb.STATUS_OK
            assert np.abs(picture_of(result).astype(int) - row_of_file(file, PICTURE)).mean() < 1.0

        def counts(engine):
            return engine.registry.find("camera", "").statistics.snapshot()

        first, second = engines
        await eventually(lambda: counts(first).rows == FRAMES)  # it has the sums
        assert 0 < counts(second).rows < FRAMES
        await eventually(lambda: counts(first).pictures["device"] == counts(second).rows)
