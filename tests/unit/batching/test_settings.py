import pytest

from forebay_server.service.batching.settings import BatchingSettings, PolicyName, QueuePolicy


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"max_batch_size": -1}, "max_batch_size"),
        ({"max_batch_size": 8, "preferred_batch_sizes": (4, 16)}, "preferred_batch_size"),
        ({"max_batch_size": 8, "preferred_batch_sizes": (0,)}, "preferred_batch_size"),
        ({"max_batch_size": 8, "depth": 0}, "depth"),
        ({"max_batch_size": 8, "depth": 4}, "depth"),
        ({"max_batch_size": 8, "max_queue_delay_us": -1}, "max_queue_delay_microseconds"),
        ({"max_batch_size": 8, "max_queue_delay_us": 10**9}, "max_queue_delay_microseconds"),
        ({"max_batch_size": 8, "priority_levels": 3}, "default_priority_level"),
        ({"max_batch_size": 8, "priority_levels": 3, "default_priority_level": 4}, "default_priority_level"),
        ({"max_batch_size": 8, "priority_queue_policies": {1: QueuePolicy()}}, "priority_queue_policy"),
        ({"max_batch_size": 8, "guard_min_us": -1}, "guard_min_us"),
    ],
)
def test_value_out_of_range_is_named_in_the_error(options, name):
    with pytest.raises(ValueError, match=name):
        BatchingSettings(**options)


def test_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="fifo"):
        BatchingSettings(8, policy="fifo")


@pytest.mark.parametrize("options", [{"default_timeout_us": -1}, {"max_queue_size": -1}])
def test_negative_queue_policy_is_an_error(options):
    with pytest.raises(ValueError, match="at least 0"):
        QueuePolicy(**options)


def test_policy_may_be_named_by_text():
    assert BatchingSettings(8, policy="window").policy is PolicyName.WINDOW


@pytest.mark.parametrize(("wished", "level"), [(0, 2), (1, 1), (3, 3), (4, 2), (-1, 2)])
def test_priority_that_does_not_exist_is_the_default_level(wished, level):
    assert BatchingSettings(8, priority_levels=3, default_priority_level=2).level_of(wished) == level


def test_without_levels_every_priority_is_the_same():
    assert {BatchingSettings(8).level_of(priority) for priority in (0, 1, 7)} == {0}
