"""`model_warmup`, run: on every instance, as often as asked, before the version serves; a wrong one stops the load."""

import numpy as np
import pytest

from forebay_server.engines.device_simulated import FaultPlan, SimulatedDevice
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.models.config_text import ConfigError
from tests.support.real_server import ROW_BYTES, simulated
from tests.support.version import Answers, check_idle, simulated_device, workshop_of

ROW = bytes(range(ROW_BYTES))


class Everything(Answers):
    """Keeps completions of requests without a client as well."""

    def post(self, completions):
        self.completions.extend(completions)


def with_warmup(root, text, **options):
    simulated(root, **options)
    with (root / "sim" / "config.pbtxt").open("a") as file:
        file.write(text)
    (root / "sim" / "warmup").mkdir()
    (root / "sim" / "warmup" / "row").write_bytes(ROW)
    return root


def sample(data='input_data_file: "row"', batch_size=3, count=2):
    return (
        f'model_warmup {{ name: "w" batch_size: {batch_size} count: {count} inputs {{ key: "input" '
        f"value {{ data_type: TYPE_UINT8 dims: {ROW_BYTES} {data} }} }} }}"
    )


def test_every_instance_runs_every_sample_as_often_as_it_says(tmp_path):
    root = with_warmup(tmp_path, sample() + sample(count=1), instances=2)
    with workshop_of(root, device=simulated_device()) as workshop:
        workshop.answers = Everything()
        version = workshop.open()
        runs = [completion for completion in workshop.answers.completions if completion.batch_size == 3]
        assert len(runs) == 2 * (2 + 1)  # no derived batch has 3 rows
        for completion in runs:
            assert completion.error is None
            expected = np.tile(np.frombuffer(ROW, np.uint8), (3, 1))
            np.testing.assert_array_equal(completion.outputs[0], expected)
        assert version.statistics.snapshot().executions == 0
        assert version.close(10)
        check_idle(workshop, version)
        assert workshop.devices[0].races == ()
        assert workshop.devices[0].leaks == ()


def test_samples_run_after_the_derived_batches_and_before_anything_serves(tmp_path):
    with workshop_of(with_warmup(tmp_path, sample(count=1)), device=simulated_device()) as workshop:
        workshop.answers = Everything()
        version = workshop.open()
        sizes = [completion.batch_size for completion in workshop.answers.completions]
        assert sizes[0] == 3
        assert set(sizes[1:]) == {1, 2, 4}  # calibration, which runs last
        workshop.answers = Answers()
        assert version.close(10)


def test_a_sample_that_the_model_fails_on_stops_the_load_and_leaks_nothing(tmp_path):
    def failing(clock):
        return SimulatedDevice(
            clock=clock, faults=FaultPlan(fail={("execute", 0): ExecutionError("index out of range")})
        )

    with workshop_of(with_warmup(tmp_path, sample()), device=failing) as workshop:
        with pytest.raises(ConfigError) as caught:
            workshop.open()
        assert str(caught.value) == ("sim/config.pbtxt: model_warmup 'w': the model fails on it: index out of range")
        assert workshop.devices[0].leaks == ()
        assert workshop.permits.taken_count == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (sample(batch_size=5), "batch_size is 5, but the model takes at most 4 rows"),
        (sample(data='input_data_file: "gone"'), "warmup/gone is not in the folder sim"),
    ],
)
def test_a_sample_that_is_wrong_stops_the_load_and_leaks_nothing(tmp_path, text, words):
    with workshop_of(with_warmup(tmp_path, text), device=simulated_device()) as workshop:
        with pytest.raises(ConfigError) as caught:
            workshop.open()
        assert words in str(caught.value)
        assert [device.leaks for device in workshop.devices] in ([], [()])
