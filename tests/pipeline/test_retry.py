"""A failed batch does not fail its innocent requests: each runs once more, alone."""

from forebay_server.engines.device_simulated import FaultPlan
from forebay_server.engines.errors import ExecutionError
from forebay_server.service.errors import Outcome
from forebay_server.service.pipeline.slots import SlotState
from forebay_server.service.request import Delivery
from tests.support.lane import LaneDriver


class Listener:
    """Records the lane's notices to the former."""

    def __init__(self) -> None:
        self.arrived = []
        self.freed = []

    def arrive(self, request) -> None:
        self.arrived.append(request)

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns) -> None:
        pass

    def slot_freed(self, lane_index, slot_index, d2h_ns) -> None:
        self.freed.append(slot_index)


def failing_lane(verb: str):
    lane = LaneDriver(slot_count=1)
    lane.pipeline.d2h.listener = Listener()
    lane.device.arm(FaultPlan(fail={(verb, 0): ExecutionError("as the test asks")}))
    return lane, lane.pipeline.d2h.listener


def test_requests_of_a_failed_batch_run_again_alone():
    for verb in ("copy_h2d", "execute"):
        lane, listener = failing_lane(verb)
        batch = lane.form(rows=3)
        requests = list(batch.requests)
        lane.run(batches=0)
        assert lane.completions == []
        assert listener.arrived == requests
        assert len({request.batch_key for request in requests}) == 3
        assert len({id(request.stream) for request in requests}) == 3
        assert all(request.stream.delivery is Delivery.EVERY for request in requests)
        assert not any(request.frame.is_released for request in requests)
        assert listener.freed == [0]
        assert lane.slots[0].state is SlotState.FREE
        for request in requests:
            request.frame.release()
        lane.close()


def test_request_that_fails_alone_is_answered_failed():
    lane, listener = failing_lane("execute")
    lane.form(rows=1)
    lane.run(batches=0)
    assert listener.arrived == []
    assert [completion.error.outcome for completion in lane.completions] == [Outcome.FAILED]
    assert lane.arena.leased_count == 0
    lane.close()


def test_retried_request_that_fails_again_is_answered_failed():
    lane, listener = failing_lane("execute")
    batch = lane.form(rows=2)
    for request in batch.requests:
        request.run_alone()
    lane.run(batches=0)
    assert listener.arrived == []
    assert [completion.error.outcome for completion in lane.completions] == [Outcome.FAILED] * 2
    lane.close()


def test_requests_whose_inputs_have_gone_back_are_answered_failed():
    lane, listener = failing_lane("copy_d2h")
    lane.device.arm(FaultPlan(fail_late={("copy_d2h", 0): ExecutionError("as the test asks")}))
    lane.form(rows=2)
    lane.run(batches=0)
    assert listener.arrived == []
    assert [completion.error.outcome for completion in lane.completions] == [Outcome.FAILED] * 2
    assert lane.arena.leased_count == 0
    lane.close()
