"""A front-end process that cannot map a model's memory ends, and serves no part of the models for ever."""

import asyncio
import errno
import mmap
import os

import pytest

from forebay_server.service.group.engine_peer import UnmappedError
from forebay_server.service.group.messages import Published
from tests.support import forms
from tests.support.far_process import engine_process
from tests.support.loops import on_loop
from tests.support.real_server import SimulatedDevices, eventually, real_server, simulated


@pytest.fixture(autouse=True)
def _front_end(monkeypatch):
    monkeypatch.setattr(forms, "current", forms.FRONT_END)


class RefusedMaps:
    """Maps everything but the file that the test names by its number of maps from now on."""

    def __init__(self, monkeypatch):
        self.left = None
        self._map = mmap.mmap
        monkeypatch.setattr(mmap, "mmap", self._refusing)

    def _refusing(self, *arguments, **keywords):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return self._map(*arguments, **keywords)


@on_loop
async def test_a_front_end_process_that_cannot_map_a_version_ends_with_the_reason(tmp_path, monkeypatch):
    simulated(tmp_path)
    simulated(tmp_path, "more")
    control = {"model_control_mode": "explicit", "load_model": ("sim",)}
    async with real_server(tmp_path, devices=SimulatedDevices(), is_checked=False, **control) as running:
        front, engine = running.server.front, running.server.engine
        maps = RefusedMaps(monkeypatch)
        maps.left = 1  # the engine process's own
        await asyncio.to_thread(engine.lifecycle.load, "more")
        await eventually(lambda: front.life.fatal is not None)
        maps.left = None
        assert isinstance(front.life.fatal, UnmappedError)
        assert str(front.life.fatal) == (
            "the shared memory of model more, version 1 cannot be mapped: Cannot allocate memory"
        )
        await eventually(front.life.stopping.is_set)  # the loop sets it a step later
        assert await front.close() == 70
        await eventually(lambda: not [peer for peer in engine.peers._peers if peer.versions])
        await asyncio.to_thread(engine.lifecycle.unload, "more")
        await eventually(lambda: engine.registry.unloading() == [])


@on_loop
async def test_a_version_that_cannot_be_published_ends_the_link_and_the_next_process_gets_it(tmp_path, monkeypatch):
    simulated(tmp_path)
    simulated(tmp_path, "more")
    control = {"model_control_mode": "explicit", "load_model": ("sim",)}
    async with engine_process(tmp_path, **control) as (engine, process):
        one = process(1)
        await one.far()

        def refuse(_):
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            await asyncio.to_thread(engine.lifecycle.load, "more")
            await eventually(lambda: one.is_lost)
        two = process(1)
        await two.far("more")
        assert {message.name for message in two.got(Published)} == {"sim", "more"}
