"""Random damage to access units crashes nothing and harms no other stream.

Each seed changes one to six places of a unit: bits, bytes, left out and doubled ranges. Half of the frames are whole,
so that damage meets a decoder with pictures.
"""

import os

import pytest

from forebay.wire import frames_pb2 as pb
from tests.rpc.test_video import answers, opened, shown_level
from tests.support.loops import on_loop
from tests.support.pictures import pictures
from tests.support.real_server import real_server
from tests.support.videos import Unit, clip, level, mutated

MUTATIONS = int(os.environ.get("FOREBAY_VIDEO_MUTATIONS", "1000"))
ANSWERS = {pb.STATUS_OK, pb.STATUS_INVALID, pb.STATUS_NEEDS_KEYFRAME, pb.STATUS_OVERLOADED}

pytestmark = pytest.mark.heavy


@on_loop(guard_s=900)
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_damaged_units_are_answered_and_other_streams_unharmed(tmp_path, codec):
    units, other = clip(20, codec, gop=5, bframes=2), clip(10)
    async with real_server(pictures(tmp_path)) as running:
        for start in range(0, MUTATIONS, 50):
            sent = []
            for seed in range(start, start + 50):
                unit = units[seed % len(units)]
                sent += [unit, Unit(mutated(units[(seed + 1) % len(units)].data, seed), 0, is_keyframe=False)]
            damaged, whole = await opened(running, codec), await opened(running)
            results = await answers(damaged, sent)
            assert len(results) == len(sent)
            assert {result.status.code for result in results} <= ANSWERS
            assert not any("internal error" in result.status.message for result in results)
            for unit, result in zip(other, await answers(whole, other), strict=True):
                assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)
