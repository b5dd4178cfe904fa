"""Vector clocks are a join semilattice, and `knows` is happens-before."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.simulated.vector_clock import Epoch, VectorClock

ACTORS = st.integers(0, 3)
CLOCKS = st.dictionaries(ACTORS, st.integers(0, 5)).map(VectorClock)


@given(CLOCKS, CLOCKS, CLOCKS)
def test_join_is_commutative_associative_and_idempotent(a, b, c):
    assert a.join(b) == b.join(a)
    assert a.join(b).join(c) == a.join(b.join(c))
    assert a.join(a) == a


@given(CLOCKS, CLOCKS)
def test_join_is_the_least_upper_bound(a, b):
    joined = a.join(b)
    assert a <= joined
    assert b <= joined
    for actor in range(4):
        assert joined.count(actor) in {a.count(actor), b.count(actor)}


@given(CLOCKS, ACTORS)
def test_a_tick_is_known_to_nobody_before(clock, actor):
    later = clock.tick(actor)
    epoch = Epoch(actor, later.count(actor))
    assert later.knows(epoch)
    assert not clock.knows(epoch)
    assert clock <= later
    assert not later <= clock


@given(CLOCKS, CLOCKS, ACTORS)
def test_joining_is_learning(clock, other, actor):
    later = other.tick(actor)
    assert clock.join(later).knows(Epoch(actor, later.count(actor)))


@given(CLOCKS, CLOCKS)
def test_equal_clocks_have_equal_hashes(a, b):
    if a == b:
        assert hash(a) == hash(b)
    assert VectorClock({0: 0}) == VectorClock()
    assert hash(VectorClock({0: 0})) == hash(VectorClock())
    assert a != "a clock"
