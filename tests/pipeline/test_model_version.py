"""A model version with all its threads: its answers, its end, and that a failed opening leaves nothing behind."""

import pytest

from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import DeviceMemoryError, EngineError, ExecutionError, ModelFileError
from forebay_server.service.errors import Outcome
from forebay_server.service.models.repository import RepositoryError
from tests.support.real_server import simulated
from tests.support.version import check_idle, simulated_device, workshop_of

DEVICES = {
    "host": None,
    "simulated": simulated_device(),
    "simulated, gathering": simulated_device(gather_below_bytes=4096),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("instances", [1, 3])
def test_every_request_is_answered_with_its_own_row(tmp_path, device, instances):
    with workshop_of(simulated(tmp_path, instances=instances), device=DEVICES[device]) as workshop:
        version = workshop.open()
        requests = workshop.send(version, 60)
        workshop.check(requests)
        assert version.close(10)
        check_idle(workshop, version)
        assert {completion.error for completion in workshop.answers.completions} == {None}
        assert getattr(workshop.devices[0], "races", ()) == ()
        assert workshop.fatal == []


def test_a_version_that_is_closed_finishes_what_has_arrived(tmp_path):
    with workshop_of(simulated(tmp_path, alpha_ms=1), device=simulated_device()) as workshop:
        version = workshop.open()
        requests = workshop.send(version, 40)
        assert version.close(10)
        workshop.check(requests)
        assert all(completion.error is None for completion in workshop.answers.completions)
        check_idle(workshop, version)
        assert workshop.devices[0].leaks == ()


def test_a_request_that_comes_after_the_close_is_cancelled(tmp_path):
    with workshop_of(simulated(tmp_path)) as workshop:
        version = workshop.open()
        late = workshop.request(version)
        assert version.close(10)
        version.arrive(late)
        workshop.check([late])
        (completion,) = workshop.answers.completions
        assert completion.error.outcome is Outcome.CANCELLED
        assert workshop.permits.taken_count == 0


def test_a_version_with_a_user_is_not_closed_and_takes_no_other(tmp_path):
    with workshop_of(simulated(tmp_path), device=simulated_device()) as workshop:
        version = workshop.open()
        assert version.try_use()
        lease = version.arena.lease()
        assert not version.close(0)
        lease.host.write_view()[:] = 1  # its memory is there
        lease.release()
        assert not version.try_use()
        version.end_use()
        assert version.close(10)
        check_idle(workshop, version)


def test_closing_twice_is_harmless(tmp_path):
    with workshop_of(simulated(tmp_path), device=simulated_device()) as workshop:
        version = workshop.open()
        assert version.close(10)
        assert version.close(10)


def test_what_reading_the_models_left_is_given_back_before_there_are_buffers(tmp_path):
    held = []
    with workshop_of(simulated(tmp_path, instances=2), device=simulated_device()) as workshop:
        workshop.before_buffers = lambda: held.append(workshop.devices[0].leaks)
        workshop.open()
        assert workshop.devices[0].leaks
    assert held == [()]


def test_opening_takes_no_permit_of_the_server(tmp_path):
    with workshop_of(simulated(tmp_path, max_batch_size=8), device=simulated_device(), permits=1) as workshop:
        share = workshop.permits.take()
        version = workshop.open()
        workshop.permits.give_back(share)
        workshop.check(workshop.send(version, 1))
        assert version.close(10)


def count_operations(root, verb):
    """How many operations of a kind opening takes."""
    with workshop_of(root, device=simulated_device(), permits=4) as workshop:
        version = workshop.open()
        number = workshop.devices[0]._core._faults._counts[verb]
        assert version.close(10)
        return number


@pytest.mark.parametrize("verb", ["alloc_host", "alloc_device"])
def test_an_allocation_that_does_not_fit_leaks_nothing_wherever_it_comes(tmp_path, verb):
    simulated(tmp_path, instances=2)
    number = count_operations(tmp_path, verb)
    assert number >= 16
    for position in range(number):
        faults = FaultPlan(fail={(verb, position): DeviceMemoryError("does not fit")})
        with workshop_of(tmp_path, device=simulated_device(faults=faults), permits=4) as workshop:
            with pytest.raises(DeviceMemoryError, match=r"^sim: does not fit$"):
                workshop.open()
            assert workshop.devices[0].leaks == ()


@pytest.mark.parametrize("position", [0, 1, 5, 11])
@pytest.mark.parametrize("verb", ["copy_h2d", "execute", "copy_d2h", "record", "wait", "sync"])
def test_a_model_that_fails_when_it_is_tried_leaks_nothing(tmp_path, verb, position):
    faults = FaultPlan(fail={(verb, position): ExecutionError("as the test asks")})
    with workshop_of(simulated(tmp_path, instances=2), device=simulated_device(faults=faults)) as workshop:
        with pytest.raises((RepositoryError, EngineError), match=r"sim.*as the test asks"):
            workshop.open()
        assert workshop.devices[0].leaks == ()
        assert workshop.devices[0].races == ()
        assert workshop.permits.taken_count == 0


def test_an_option_that_makes_no_sense_leaks_nothing(tmp_path):
    with workshop_of(simulated(tmp_path, alpha_ms="fast"), device=simulated_device()) as workshop:
        with pytest.raises(ModelFileError, match=r"sim: .*alpha_ms"):
            workshop.open()
        assert workshop.devices[0].leaks == ()
