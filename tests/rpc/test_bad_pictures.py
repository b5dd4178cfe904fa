"""Pictures that are broken, cut or lie about themselves: INVALID each, and nothing else is touched."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from tests.support import jpegs
from tests.support.loops import on_loop
from tests.support.pictures import SIDE, jpeg, jpeg_that_says, pictures, png, png_that_says
from tests.support.real_server import LEAK, real_server

PICTURES = {"model": "camera", "outputs": [pb.OUTPUT_TENSORS]}
BAD_PICTURES = {
    "JPEG that is empty": (pb.ENCODING_JPEG, b""),
    "JPEG that is text": (pb.ENCODING_JPEG, b"not a picture at all" * 10),
    "JPEG that is a PNG": (pb.ENCODING_JPEG, png()),
    "JPEG cut in its header": (pb.ENCODING_JPEG, jpeg()[:60]),
    "JPEG cut in half": (pb.ENCODING_JPEG, jpeg(64, 64)[: len(jpeg(64, 64)) // 2]),
    "JPEG of 0x0": (pb.ENCODING_JPEG, jpeg_that_says(0, 0)),
    "JPEG of 65535x65535": (pb.ENCODING_JPEG, jpeg_that_says(65535, 65535)),
    "JPEG that lies about its size": (pb.ENCODING_JPEG, jpeg_that_says(4096, 4096)),
    "PNG that is empty": (pb.ENCODING_PNG, b""),
    "PNG that is a JPEG": (pb.ENCODING_PNG, jpeg()),
    "PNG cut in its header": (pb.ENCODING_PNG, png()[:20]),
    "PNG cut in half": (pb.ENCODING_PNG, png()[: len(png()) // 2]),
    "PNG of 0x0": (pb.ENCODING_PNG, png_that_says(0, 0)),
    "PNG of 65535x65535": (pb.ENCODING_PNG, png_that_says(65535, 65535)),
    "PNG of 2147483647x2147483647": (pb.ENCODING_PNG, png_that_says(2**31 - 1, 2**31 - 1)),
    "PNG that lies about its size": (pb.ENCODING_PNG, png_that_says(SIDE * 2, SIDE * 2)),
}
GOOD_PICTURES = {pb.ENCODING_JPEG: jpeg(), pb.ENCODING_PNG: png()}


@pytest.mark.parametrize("encoding", GOOD_PICTURES)
@on_loop
async def test_bad_pictures_are_invalid_between_good_ones(tmp_path, encoding):
    bad = {name: data for name, (kind, data) in BAD_PICTURES.items() if kind == encoding}
    async with real_server(pictures(tmp_path), max_image_pixels=1 << 24) as running:
        stream = await running.open(**PICTURES, encoding=encoding, max_in_flight=64)
        for index, data in enumerate(bad.values()):
            await stream.send(2 * index, payload=data)
            await stream.send(2 * index + 1, payload=GOOD_PICTURES[encoding])
        await stream.half_close()
        results = await stream.results()
    assert [r.seq for r in results] == list(range(2 * len(bad)))
    for name, result in zip(bad, results[::2], strict=True):
        assert result.status.code == pb.STATUS_INVALID, name
        assert result.status.message, name
        assert not LEAK.search(result.status.message), result.status.message
    assert {r.status.code for r in results[1::2]} == {pb.STATUS_OK}


@on_loop
async def test_pictures_with_harmless_oddities_are_answered_ok(tmp_path):
    files = [odd for odd, _ in jpegs.UNTOUCHED.values()] + list(jpegs.LOST_STRIPS.values())
    async with real_server(pictures(tmp_path)) as running:
        stream = await running.open(**PICTURES, encoding=pb.ENCODING_JPEG, max_in_flight=64)
        for seq, file in enumerate(files):
            await stream.send(seq, payload=file)
        await stream.half_close()
        results = await stream.results()
    assert [(r.seq, r.status.code) for r in results] == [(seq, pb.STATUS_OK) for seq in range(len(files))]


def mutated(data):
    """A picture with some of its bytes changed, cut or repeated."""
    edits = st.lists(st.tuples(st.integers(0, len(data) - 1), st.binary(max_size=4), st.integers(0, 8)), max_size=6)

    def apply(edits):
        changed = bytearray(data)
        for position, replacement, length in edits:
            changed[position : position + length] = replacement
        return bytes(changed)

    return st.one_of(st.binary(max_size=200), edits.map(apply), st.integers(0, len(data)).map(lambda n: data[:n]))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jpegs=st.lists(mutated(jpeg(40, 30)), min_size=5, max_size=20),
    pngs=st.lists(mutated(png(40, 30)), min_size=5, max_size=20),
)
def test_no_picture_ends_more_than_itself(tmp_path_factory, jpegs, pngs):
    root = pictures(tmp_path_factory.mktemp("repository"))

    @on_loop
    async def run():
        async with real_server(root) as running:
            for encoding, payloads in ((pb.ENCODING_JPEG, jpegs), (pb.ENCODING_PNG, pngs)):
                stream = await running.open(**PICTURES, encoding=encoding, max_in_flight=64)
                for seq, payload in enumerate([*payloads, GOOD_PICTURES[encoding]]):
                    await stream.send(seq, payload=payload)
                await stream.half_close()
                results = await stream.results()
                assert [r.seq for r in results] == list(range(len(payloads) + 1))
                assert {r.status.code for r in results} <= {pb.STATUS_OK, pb.STATUS_INVALID}
                assert results[-1].status.code == pb.STATUS_OK

    run()
