"""Streams that were asked to leave are refused once each, for a while."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.load.leavers import BACK_NS, Leavers


def test_a_stream_that_comes_back_at_once_is_refused_once():
    leavers = Leavers()
    leavers.asked("door", 0)
    assert not leavers.comes_back("yard", 1)
    assert leavers.comes_back("door", 1)
    assert not leavers.comes_back("door", 2)


def test_one_that_comes_later_is_taken():
    leavers = Leavers()
    leavers.asked("door", 0)
    leavers.asked("yard", 1)
    assert not leavers.comes_back("door", BACK_NS)
    assert leavers.comes_back("yard", BACK_NS)


steps = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, BACK_NS)), max_size=30)


@given(steps)
def test_no_stream_is_refused_more_often_than_it_was_asked_and_none_is_kept_for_ever(played):
    leavers, now_ns = Leavers(), 0
    asked_ns = {}
    for is_asked, name, pause_ns in played:
        now_ns += pause_ns
        if is_asked:
            leavers.asked(name, now_ns)
            asked_ns[name] = now_ns
        else:
            expected = name in asked_ns and now_ns - asked_ns.pop(name) < BACK_NS
            assert leavers.comes_back(name, now_ns) == expected
        assert set(leavers._until_ns) == {each for each, at_ns in asked_ns.items() if now_ns - at_ns < BACK_NS}
