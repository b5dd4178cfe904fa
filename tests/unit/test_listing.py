"""The list of open streams: its order, its length, and its parts of several processes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import streams_pb2 as pb
from forebay_server.service.load.listing import (
    MOST_LISTED,
    NO_STREAMS,
    Listing,
    Placement,
    StreamLine,
    listing_of,
    movable_by_process,
    together,
)

LINE = StreamLine("door", "sim", "1", Placement.MOVABLE, 0.5, 3.0, 15, has_state=False, is_resumed=False)
lines = st.lists(
    st.builds(
        replace,
        st.just(LINE),
        stream_id=st.text(max_size=3),
        placement=st.sampled_from(Placement),
        load=st.floats(0, 1),
        has_state=st.booleans(),
    ),
    max_size=12,
)


def test_the_heaviest_come_first_then_those_with_state_then_those_that_cannot_move():
    light = replace(LINE, load=0.1)
    tracked = replace(LINE, load=0.9, has_state=True)
    leaving = replace(LINE, load=0.9, placement=Placement.LEAVING)
    assert listing_of([leaving, tracked, light, LINE], 4, 2) == Listing((LINE, light, tracked, leaving), 4, 2)


def test_a_list_is_bounded_and_says_how_many_there_are():
    found = listing_of([LINE] * (MOST_LISTED + 1), MOST_LISTED + 1, 0)
    assert (len(found.streams), found.count) == (MOST_LISTED, MOST_LISTED + 1)


@given(st.dictionaries(st.integers(0, 7), lines, max_size=4))
def test_processes_together_have_every_stream_once_in_one_order(by_process):
    found = together({number: listing_of(each, len(each), number) for number, each in by_process.items()})
    assert found.count == len(found.streams) == sum(len(each) for each in by_process.values())
    assert found.inference == sum(by_process)
    expected = [replace(line, front_end=number) for number, each in by_process.items() for line in each]
    key = repr
    assert sorted(found.streams, key=key) == sorted(expected, key=key)
    assert found == listing_of(found.streams, found.count, found.inference)
    movable = movable_by_process(found)
    for number, each in by_process.items():
        own = [(line.has_state, line.load) for line in each if line.placement is Placement.MOVABLE]
        assert sorted(movable.get(number, [])) == sorted(own)


def test_no_process_that_answers_is_no_stream():
    assert together({}) == NO_STREAMS


def test_placements_are_those_of_the_protocol():
    own = {f"PLACEMENT_{each.name}": each.value for each in Placement}
    assert {"PLACEMENT_UNSPECIFIED": 0, **own} == dict(pb.Placement.items())
