"""Blocks never overlap, lie in the area, and all of it is there again when they are back."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.group.blocks import Blocks

UNITS = st.integers(1, 200)


@given(UNITS, st.lists(st.tuples(st.integers(1, 64), st.integers(0, 9), st.booleans()), max_size=80))
def test_blocks_do_not_overlap_and_come_back_whole(units, events):
    blocks, held = Blocks(units), []
    for size, index, is_take in events:
        if is_take:
            place = blocks.take(size)
            if place is None:
                assert held or size > blocks.largest
                continue
            assert 0 <= place <= units - size
            assert all(place + size <= other or place >= other + length for other, length in held)
            held.append((place, size))
        elif held:
            blocks.give_back(*held.pop(index % len(held)))
    for block in held:
        blocks.give_back(*block)
    assert blocks._free == Blocks(units)._free


@given(UNITS)
def test_the_largest_block_is_at_least_half_of_the_area(units):
    blocks = Blocks(units)
    assert blocks.largest <= units < 2 * blocks.largest
    assert blocks.take(blocks.largest) == 0
    assert blocks.take(blocks.largest) is None


def test_an_empty_area_has_nothing():
    assert Blocks(0).take(1) is None


def test_a_block_that_came_back_is_the_next_to_be_given_out():
    blocks = Blocks(64)
    first, second = blocks.take(4), blocks.take(4)
    blocks.give_back(first, 4)
    assert blocks.take(4) == first != second
