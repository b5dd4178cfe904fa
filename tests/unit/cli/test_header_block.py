"""Statuses in a header block: every form in which a server may write them, and the forms that are left to gRPC.

The blocks in Huffman's code come from the `hpack` library.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.cli.remote import header_block
from forebay_server.service.cli.remote.header_block import Statuses, read_statuses
from forebay_server.service.cli.remote.health import UnclearError
from tests.support import http2

HUFFMAN_GRPC_STATUS = bytes.fromhex("88 9acac8b21234da8f")
HUFFMAN_NUMBERS = {0: "07", 5: "6f", 12: "08bf", 13: "0b3f", 16: "0b9f"}


@pytest.mark.parametrize(
    ("block", "statuses"),
    [
        ("", (None, None)),
        ("88", (200, None)),
        ("8d", (404, None)),
        ("8e", (500, None)),
        ("20 88", (200, None)),
        ("3f e1 1f 88", (200, None)),
        ("48 03 353033", (503, None)),
        ("08 83 6c0cff", (503, None)),
        ("18 03 343239", (429, None)),
        ("0e 82 1001", (200, None)),
        ("00 07 3a737461747573 03 353032", (502, None)),
        ("00 85 b8848d36a3 03 353032", (502, None)),
        ("82 00 03 666f6f 03 626172 00 83 94e7ff 82 1c64 88", (200, None)),
        ("5f 8b 1d75d0620d263d4c4d6564 88", (200, None)),
    ],
)
def test_the_status_of_http_is_read_in_every_form(block, statuses):
    assert read_statuses(bytes.fromhex(block)) == Statuses(*statuses)


@pytest.mark.parametrize("number", range(17))
@pytest.mark.parametrize("first", [b"\0", b"\x10", b"\x40"], ids=["not kept", "never kept", "kept"])
def test_every_status_of_grpc_is_read(number, first):
    field = http2.field("grpc-status", str(number))
    assert read_statuses(b"\x88" + first + field[1:]) == (200, number)


@pytest.mark.parametrize("number", HUFFMAN_NUMBERS)
def test_statuses_in_huffmans_code_are_read(number):
    data = bytes.fromhex(HUFFMAN_NUMBERS[number])
    block = b"\x40" + HUFFMAN_GRPC_STATUS + bytes([0x80 | len(data)]) + data
    assert read_statuses(block) == (None, number)


@pytest.mark.parametrize(
    "block",
    [
        "be",
        "80",
        "7f 00 00",
        "88 88",
        "08 03 32",
        "08 02 3230 08",
        "08 00",
        "08 04 32303030",
        "08 03 2d3230",
        "08 81 f8",
        "08 82 1000",
        "08 82 07ff",
        "00 0b 677270632d737461747573 01 78",
        "ff ff ff ff ff ff",
        "00 ff ff ff ff ff 7f",
        "88 00",
    ],
    ids=[
        "a field of the table",
        "no field",
        "a name of the table",
        "two statuses",
        "a value that is cut",
        "a field that is cut",
        "no digits",
        "four digits",
        "no number",
        "no digit in Huffman's code",
        "zeros at the end of Huffman's code",
        "too many ones at its end",
        "a letter",
        "an endless index",
        "an endless length",
        "a name that is missing",
    ],
)
def test_a_block_that_is_not_certain_is_left_to_grpc(block):
    with pytest.raises(UnclearError):
        read_statuses(bytes.fromhex(block))


@given(st.binary(max_size=64))
def test_any_bytes_are_statuses_or_unclear(block):
    try:
        found = read_statuses(block)
    except UnclearError:
        return
    assert all(value is None or 0 <= value <= 999 for value in found)


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_written_field_is_skipped_in_whole(name, value):
    block = header_block.new_field(name, value) if name not in {":status", "grpc-status"} else b""
    assert read_statuses(block + b"\x88") == (200, None)


@pytest.mark.parametrize(("number", "written"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_an_integer_is_written_in_groups_of_seven_bits(number, written):
    assert header_block.varint(number).hex() == written
