"""From config.pbtxt to the knobs of the batch former."""

import dataclasses

import numpy as np
import pytest

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.batching.settings import BatchingSettings, PolicyName, QueuePolicy, TimeoutAction
from forebay_server.service.models.batching import batching_settings, executed_sizes, measured_sizes
from forebay_server.service.models.config import describe
from forebay_server.service.models.repository import Repository

TENSORS = (TensorSpec("x", np.dtype(np.float32), (4,)),)


def settings_of(tmp_path, text):
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_text("")
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    description = describe(Repository([tmp_path]).model("m"))
    return batching_settings(dataclasses.replace(description, specs=EngineSpecs(TENSORS, TENSORS, max_batch_size=8)))


def test_a_configuration_that_says_nothing_leaves_the_defaults(tmp_path):
    assert settings_of(tmp_path, "") == BatchingSettings(8)


def test_every_knob_of_triton_reaches_the_former(tmp_path):
    text = """
        max_batch_size: 8
        dynamic_batching {
            preferred_batch_size: [ 8, 4 ]
            max_queue_delay_microseconds: 1500
            priority_levels: 3
            default_priority_level: 2
            default_queue_policy { default_timeout_microseconds: 70 max_queue_size: 9 }
            priority_queue_policy {
                key: 3
                value { timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true }
            }
        }
    """
    assert settings_of(tmp_path, text) == BatchingSettings(
        8,
        preferred_batch_sizes=(4, 8),
        max_queue_delay_us=1500,
        priority_levels=3,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(TimeoutAction.REJECT, 70, max_queue_size=9),
        priority_queue_policies={3: QueuePolicy(TimeoutAction.DELAY, 5, allow_timeout_override=True)},
    )


def test_as_many_priority_levels_as_triton_counts_are_served(tmp_path):
    most = 2**64 - 1
    text = f"""
        dynamic_batching {{
            priority_levels: {most} default_priority_level: {most}
            priority_queue_policy {{ key: {most - 1} value {{ max_queue_size: 3 }} }}
        }}
    """
    settings = settings_of(tmp_path, text)
    assert (settings.level_of(0), settings.level_of(7), settings.level_of(most)) == (most, 7, most)
    assert settings.queue_policy_of(most - 1).max_queue_size == 3


@pytest.mark.parametrize("policy", PolicyName)
def test_a_model_can_choose_its_policy(tmp_path, policy):
    text = f'parameters {{ key: "policy" value {{ string_value: "{policy}" }} }}'
    assert settings_of(tmp_path, text).policy is policy


def test_a_policy_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="fifo"):
        settings_of(tmp_path, 'parameters { key: "policy" value { string_value: "fifo" } }')


def test_a_queue_policy_of_a_level_that_does_not_exist_is_an_error(tmp_path):
    text = (
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } } }"
    )
    with pytest.raises(ValueError, match="from 1 to 2"):
        settings_of(tmp_path, text)


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (48, (1, 2, 4, 8, 16, 32, 48))]
)
def test_the_largest_size_is_measured_and_a_few_below_it(most, sizes):
    assert measured_sizes(most) == executed_sizes("cuda", most) == sizes
    assert executed_sizes("cpu", most) == tuple(range(1, most + 1))
