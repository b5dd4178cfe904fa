"""Interlaced H.264 over a real server: fields in one unit, in two, and lost; and fields coded within one picture."""

import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from tests.rpc.test_video import answers, opened, shown_level
from tests.support.fields import interlaced
from tests.support.loops import on_loop
from tests.support.pictures import pictures
from tests.support.real_server import real_server
from tests.support.videos import Unit, clip, encode, level, levels

GREYS = [(40 + 11 * index, 50 + 13 * index) for index in range(8)]


def expected(index):
    """The mean of a picture's fields, limited range."""
    return (sum(GREYS[index]) / 2 - 16) * 255 / 219


def units_of(payloads):
    return [Unit(payload, 0, is_keyframe=False) for payload in payloads]


@on_loop
async def test_both_fields_in_one_frame_are_one_picture(tmp_path):
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, units_of(first + second for first, second in interlaced(GREYS)))
        for index, result in enumerate(results):
            assert shown_level(result) == pytest.approx(expected(index), abs=3)


@on_loop
@pytest.mark.parametrize("delivery", [pb.DELIVERY_EVERY, pb.DELIVERY_LATEST])
async def test_of_two_frames_with_a_field_each_the_second_has_the_result(tmp_path, delivery):
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, delivery=delivery, latency_budget_ms=60_000)
        if delivery == pb.DELIVERY_EVERY:
            results = await answers(stream, units_of(field for pair in interlaced(GREYS) for field in pair))
        else:  # one by one, so that no frame waits when a newer one comes
            results = []
            for seq, payload in enumerate((field for pair in interlaced(GREYS) for field in pair), 1):
                await stream.send(seq, payload=payload)
                results += await stream.results(1)
            await stream.half_close()
            await stream.drain()
        assert [result.seq for result in results] == list(range(1, 17))
        for index in range(len(GREYS)):
            first, second = results[2 * index : 2 * index + 2]
            assert first.status.code == pb.STATUS_SUPERSEDED
            assert "other field" in first.status.message
            assert shown_level(second) == pytest.approx(expected(index), abs=3)


@on_loop
@pytest.mark.parametrize("lost", range(2, 10))
@pytest.mark.parametrize("is_told", [True, False], ids=["seq has a gap", "lost before the client"])
async def test_after_a_lost_field_no_picture_is_wrong(tmp_path, lost, is_told):
    fields = [field for pair in interlaced(GREYS) for field in pair]
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        seqs = {}
        for index, payload in enumerate(fields):
            if index != lost:
                seq = index + 1 if is_told else len(seqs) + 1
                seqs[seq] = index
                await stream.send(seq, payload=payload)
        await stream.half_close()
        for result in await stream.results():
            index = seqs[result.seq]
            is_whole = index < lost or index >= 10  # a keyframe is the sixth picture
            if is_whole and index % 2:
                assert shown_level(result) == pytest.approx(expected(index // 2), abs=3)
            elif is_whole and index != lost - 1:
                assert result.status.code == pb.STATUS_SUPERSEDED
            else:
                assert result.status.code in {pb.STATUS_NEEDS_KEYFRAME, pb.STATUS_SUPERSEDED}, result.status


@on_loop
async def test_two_whole_pictures_in_a_frame_are_refused_also_where_fields_may_be(tmp_path):
    units = encode(levels(4), params="tff=1")
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, [units[0], Unit(units[1].data + units[2].data, 0, False), units[3]])
        assert [result.status.code for result in results[:2]] == [pb.STATUS_OK, pb.STATUS_INVALID]
        assert "2 pictures" in results[1].status.message


@on_loop
@pytest.mark.parametrize("bframes", [0, 2])
async def test_pictures_whose_macroblocks_are_fields_are_right(tmp_path, bframes):
    units = clip(12, params="tff=1", bframes=bframes, size=(64, 96))
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, units)
        start = next(index for index, result in enumerate(results) if result.status.code == pb.STATUS_OK)
        assert start == 0
        refused = [result for result in results if result.status.code != pb.STATUS_OK]
        assert len(refused) <= 1 if bframes else not refused
        for unit, result in zip(units, results, strict=True):
            if result not in refused:
                assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)
        assert np.isfinite(shown_level(results[0]))


@on_loop
async def test_fields_of_h265_are_pictures_of_their_own(tmp_path):
    units = clip(8, "hevc", params="interlace=tff")
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, "hevc")
        for unit, result in zip(units, await answers(stream, units), strict=True):
            assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)
