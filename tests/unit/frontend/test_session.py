"""A session answers every frame once and in order, keeps its window, and leaves nothing behind."""

import gc
import weakref

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from forebay.wire import frames_pb2 as pb
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.errors import BatchFailedError, InvariantError, Outcome
from forebay_server.service.frontend.frames import decoder as decoder_module
from forebay_server.service.request import Feasibility
from tests.support.front_end import Scene, specs_of

EVERY = {"delivery": pb.DELIVERY_EVERY}
ON_A_WORKER = {"encoding": pb.ENCODING_RGB8, "width": 6, "height": 6}
JPEG = {"encoding": pb.ENCODING_JPEG}


def jpeg(value=128, size=(6, 6)):
    return cv2.imencode(".jpg", np.full((*size, 3), value, np.uint8))[1].tobytes()


def test_results_follow_the_order_of_arrival_whatever_ends_first():
    scene = Scene(**EVERY)
    for seq in (1, 2, 3):
        scene.send(seq)
    scene.version.form()
    scene.version.finish(2)
    scene.version.finish(1)
    scene.sink.drain()
    assert scene.write() == 0
    assert scene.output_calls == 0
    scene.version.finish(0)
    scene.sink.drain()
    assert scene.output_calls == 1
    scene.write()
    assert scene.codes == [(1, "OK"), (2, "OK"), (3, "OK")]
    assert [r.tensors[0].data[0] for r in scene.results] == [1, 2, 3]
    assert [r.capture_time_us for r in scene.results] == [-1, -2, -3]


def test_a_refused_frame_takes_its_place_and_its_stream_goes_on():
    scene = Scene(**EVERY)
    scene.send(5)
    scene.send(5)
    scene.send(6, payload=b"short")
    scene.send(7, budget_ms=float("nan"))
    scene.send(8, budget_ms=-1)
    scene.send(9)
    scene.settle()
    assert scene.codes == [(5, "OK"), (5, "INVALID"), (6, "INVALID"), (7, "INVALID"), (8, "INVALID"), (9, "OK")]
    assert "at least 6" in scene.results[1].status.message
    assert "48" in scene.results[2].status.message
    assert "frame.latency_budget_ms" in scene.results[3].status.message


@pytest.mark.parametrize("fields", [{}, ON_A_WORKER], ids=["on the loop", "on a worker"])
def test_an_exception_that_nobody_foresaw_ends_its_frame_and_not_the_stream(fields):
    scene = Scene(**EVERY, **fields)

    def no_memory():
        raise MemoryError("secret")

    scene.version.arena.on_write = no_memory
    for seq in (1, 2):
        with capture_logs() as logs:
            scene.send(seq)
            while scene.pool.run_one():
                pass
        assert [line["log_level"] for line in logs] == (["error"] if seq == 1 else [])
    scene.settle()
    assert scene.codes == [(1, "FAILED"), (2, "OK")]
    assert scene.results[0].status.message == "internal error; the server's log has the details"
    assert scene.version.arena.leases == []


def test_a_frame_that_was_refused_for_its_size_has_used_its_seq():
    scene = Scene(**EVERY)
    scene.send(5, payload=b"")
    scene.send(5)
    scene.settle()
    assert scene.codes == [(5, "INVALID"), (5, "INVALID")]


def test_seqs_below_resume_from_are_invalid():
    scene = Scene(resume_from=100, **EVERY)
    scene.send(99)
    scene.send(100)
    scene.settle()
    assert scene.codes == [(99, "INVALID"), (100, "OK")]


def test_the_largest_seq_ends_the_rise():
    scene = Scene(**EVERY)
    scene.send(2**64 - 1)
    scene.send(2**64 - 1)
    scene.settle()
    assert scene.codes == [(2**64 - 1, "OK"), (2**64 - 1, "INVALID")]


def test_a_budget_that_cannot_be_met_expires_without_a_lease():
    scene = Scene(latency_budget_ms=10)
    scene.version.feasibility = Feasibility(least_service_ns=10_000_001)
    scene.send(1)
    assert not scene.version.arena.leases
    scene.write()
    assert scene.codes == [(1, "EXPIRED")]


def test_a_frames_own_budget_overrides_the_streams():
    scene = Scene(latency_budget_ms=10)
    scene.version.feasibility = Feasibility(least_service_ns=20_000_000)
    scene.send(1, budget_ms=20)
    assert len(scene.version.pending) == 1
    scene.settle()


def test_a_budget_of_zero_is_already_past():
    scene = Scene(**EVERY)
    scene.clock.advance(1)
    scene.version.feasibility = Feasibility(least_service_ns=1)
    scene.send(1, budget_ms=0)
    scene.write()
    assert scene.codes == [(1, "EXPIRED")]


def test_without_a_permit_a_frame_is_overloaded_and_says_so_in_its_place():
    scene = Scene(permits=1, **EVERY)
    scene.send(1)
    scene.send(2)
    scene.settle()
    scene.send(3)
    scene.settle()
    assert scene.codes == [(1, "OK"), (2, "OVERLOADED"), (3, "OK")]


def test_every_has_room_for_its_window_and_latest_for_two():
    for fields, capacity in ((EVERY, 2), ({}, 4)):
        scene = Scene(max_in_flight=2, **fields)
        seq = 0
        while scene.session.has_room:
            seq += 1
            scene.send(seq)
        assert seq == capacity
        scene.version.form()
        while scene.version.executing:
            scene.version.finish()
        scene.sink.drain()
        assert not scene.session.has_room, "room comes when a result is handed to the transport, not before"
        assert scene.session.next_message() is not None
        assert scene.session.has_room
        assert scene.room_calls == 1
        scene.write()
        assert scene.room_calls == 1


def test_a_newer_frame_takes_the_place_of_one_still_encoded():
    scene = Scene(**ON_A_WORKER)
    for seq in (1, 2, 3):
        scene.send(seq)
    assert len(scene.version.arena.leases) == 1
    scene.settle()
    assert scene.codes == [(1, "SUPERSEDED"), (2, "SUPERSEDED"), (3, "OK")]


def test_every_decodes_all_frames_in_order():
    scene = Scene(**ON_A_WORKER, **EVERY)
    for seq in (1, 2, 3):
        scene.send(seq)
    scene.settle()
    assert scene.codes == [(1, "OK"), (2, "OK"), (3, "OK")]
    assert [r.tensors[0].data[0] for r in scene.results] == [1, 2, 3]


def test_a_frame_refused_by_the_worker_takes_its_place():
    scene = Scene(**JPEG, **EVERY)
    scene.send(1, jpeg())
    scene.send(2, jpeg()[:-50])
    scene.send(3, jpeg())
    scene.settle()
    assert scene.codes == [(1, "OK"), (2, "INVALID"), (3, "OK")]
    assert not scene.version.arena.leases


def test_a_refused_newer_frame_leaves_the_older_one_its_place():
    scene = Scene(**ON_A_WORKER)
    scene.send(1)
    scene.send(2, payload=b"short")
    scene.settle()
    assert scene.codes == [(1, "OK"), (2, "INVALID")]


def test_a_budget_can_run_out_while_the_frame_waits_for_a_decoder():
    scene = Scene(latency_budget_ms=10, **ON_A_WORKER)
    scene.send(1)
    scene.clock.advance(10_000_001)
    scene.settle()
    assert scene.codes == [(1, "EXPIRED")]
    assert not scene.version.arena.leases


def test_one_slow_decode_does_not_refuse_frames_for_ever():
    scene = Scene(latency_budget_ms=10, **ON_A_WORKER)
    scene.send(1)
    scene.version.arena.on_write = lambda: scene.clock.advance(1_000_000_000)
    scene.settle()
    seqs = range(2, 60)
    for seq in seqs:
        scene.send(seq)
        scene.settle()
    codes = dict(scene.codes)
    assert codes[2] == "EXPIRED"
    assert codes[59] == "OK"


def test_slow_decodes_are_forgotten_within_a_second_however_few_frames_come():
    scene = Scene(latency_budget_ms=10, **ON_A_WORKER)
    scene.version.arena.on_write = lambda: scene.clock.advance(100_000_000_000)
    for seq, wait_ms in ((1, 100), (2, 500), (3, 500), (4, 0)):
        scene.send(seq)
        scene.settle()
        scene.clock.advance(wait_ms * 1_000_000)
    assert [code for seq, code in scene.codes if seq > 1] == ["EXPIRED", "EXPIRED", "OK"]


def test_a_large_tensor_is_copied_by_a_worker():
    side = 600
    nbytes = side * side * 3
    assert nbytes > decoder_module.INLINE_COPY_BYTES
    shape = (side, side, 3)
    scene = Scene(image=None, specs=specs_of((shape,), (shape,)), **EVERY)
    payload = np.random.default_rng(3).integers(0, 255, nbytes, np.uint8).tobytes()
    scene.send(1, payload)
    assert not scene.version.pending
    scene.settle()
    assert scene.results[0].tensors[0].data == payload
    assert tuple(scene.results[0].tensors[0].shape) == shape


def test_inputs_lie_one_after_the_other_in_the_payload_and_apart_in_the_buffer():
    scene = Scene(image=None, specs=specs_of(((2,), (3,)), ((2,), (3,))), **EVERY)
    scene.send(1, b"abcde")
    scene.settle()
    assert [tensor.data for tensor in scene.results[0].tensors] == [b"ab", b"cde"]


def test_a_batch_that_failed_answers_its_frames_as_failed():
    scene = Scene(**EVERY)
    scene.send(1)
    scene.version.form()
    scene.version.finish(error=BatchFailedError("the model failed on this batch"))
    scene.sink.drain()
    scene.write()
    assert scene.codes == [(1, "FAILED")]
    assert scene.session.outcomes == {Outcome.FAILED: 1}


def test_half_close_answers_what_was_read_and_finishes():
    scene = Scene(**EVERY)
    scene.send(1)
    scene.session.stop_reading()
    assert not scene.session.is_finished
    scene.settle()
    assert scene.session.is_finished
    assert scene.codes == [(1, "OK")]


def test_half_close_of_an_idle_stream_wakes_the_writer():
    scene = Scene()
    scene.session.stop_reading()
    assert scene.output_calls == 1
    assert scene.session.is_finished


def test_abandon_cancels_what_waits_and_drops_what_executes():
    scene = Scene(permits=8, **EVERY)
    scene.send(1)
    scene.version.form()
    scene.send(2)
    scene.send(3)
    scene.session.abandon()
    assert scene.session.is_finished
    assert not scene.version.pending
    assert not scene.version.arena.leases
    scene.settle()
    assert scene.results == []
    assert scene.output_calls == 0
    assert scene.session.outcomes == {Outcome.CANCELLED: 3}


def test_abandon_takes_encoded_frames_out_of_their_line():
    scene = Scene(**ON_A_WORKER, **EVERY)
    scene.send(1)
    scene.send(2)
    scene.session.abandon()
    assert not scene.version.arena.leases
    scene.settle()
    assert scene.results == []
    assert scene.version.statistics.snapshot().failures == {"CANCELED": 2}


def test_abandon_while_a_worker_decodes_gives_the_lease_back_and_delivers_nothing():
    scene = Scene(**ON_A_WORKER, **EVERY)
    scene.send(1)
    scene.version.arena.on_write = scene.session.abandon
    scene.settle()
    assert scene.results == []
    assert scene.output_calls == 0
    assert not scene.version.arena.leases
    assert scene.session.outcomes == {Outcome.CANCELLED: 1}


def test_abandon_while_a_worker_refuses_gives_the_lease_back():
    scene = Scene(**JPEG, **EVERY)
    scene.send(1, b"no JPEG")
    scene.version.arena.on_write = scene.session.abandon
    scene.settle()
    assert scene.results == []
    assert not scene.version.arena.leases


def test_what_a_worker_ends_is_counted_once():
    scene = Scene(**JPEG, delivery=pb.DELIVERY_LATEST)
    scene.send(1, b"no JPEG")
    scene.pool.run_one()
    scene.send(2, jpeg())
    scene.send(3, jpeg())  # takes the place of the one before, which no worker has begun
    scene.settle()
    assert scene.codes == [(1, "INVALID"), (2, "SUPERSEDED"), (3, "OK")]
    assert scene.version.statistics.snapshot().failures == {"OTHER": 1, "REJECTED": 1}


def test_abandon_of_an_idle_stream_tells_the_former_nothing():
    scene = Scene()
    scene.session.abandon()  # the strict version refuses an empty cancellation
    assert scene.session.is_finished


def test_a_bug_of_ours_ends_the_stream_and_is_no_answer():
    scene = Scene(**EVERY)
    scene.version.arrive = broken_arrive
    with pytest.raises(InvariantError):
        scene.send(1)


def broken_arrive(_):
    raise InvariantError("the inbox is full")


def test_outputs_are_freed_as_soon_as_their_result_is_built():
    scene = Scene(**EVERY)
    scene.send(1)
    scene.version.form()
    scene.version.finish()
    outputs = weakref.ref(scene.sink.posted[0].outputs[0])
    gc.disable()
    try:
        scene.sink.drain()
        scene.write()
        assert outputs() is None, "a reference cycle keeps the completion"
    finally:
        gc.enable()


@pytest.mark.parametrize("fields", [{}, ON_A_WORKER, JPEG])
def test_a_client_that_goes_leaves_nothing_to_the_collector_of_cycles(fields):
    scene = Scene(**fields, **EVERY)
    for seq in range(1, 5):
        scene.send(seq, jpeg() if fields is JPEG else None)
        if seq < 4:
            scene.pool.run_one()  # the fourth waits for a decoder, where there is one
    formed = scene.version.form()
    scene.version.finish()
    scene.version.finish()
    held = [weakref.ref(completion.outputs[0]) for completion in scene.sink.posted]
    held += [weakref.ref(scene.session), *(weakref.ref(request.on_completion) for request in formed)]
    del formed
    gc.disable()
    try:
        scene.sink.drain()
        scene.session.abandon()
        scene.pool.run_one()
        scene.version.form()
        while scene.version.executing:
            scene.version.finish()
        scene.sink.drain()
        scene.session = None
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


def test_a_refused_frame_keeps_no_payload_alive():
    scene = Scene(**JPEG, **EVERY)
    payload = np.frombuffer(b"no JPEG", np.uint8)
    watched = weakref.ref(payload)
    scene.send(1, payload)
    del payload
    gc.disable()
    try:
        scene.pool.run_one()
        scene.sink.drain()
        assert watched() is None, "the error keeps the frame that it refuses"
    finally:
        gc.enable()
    scene.write()
    assert scene.codes == [(1, "INVALID")]


def test_time_that_a_refused_frame_waits_for_its_turn_is_delivery():
    scene = Scene(**EVERY)
    scene.send(1)
    scene.send(1)
    scene.version.form()
    scene.clock.advance(7_000_000)
    scene.version.finish()
    scene.sink.drain()
    scene.clock.advance(1_000_000)
    scene.write()
    done, refused = (result.timings for result in scene.results)
    assert (done.queue_us, done.deliver_us, done.server_total_us) == (7000, 1000, 8000)
    assert (refused.receive_us, refused.deliver_us, refused.server_total_us) == (0, 8000, 8000)


class Told(EgressTime):
    """What a session tells the former of its version, in milliseconds since it began."""

    def __init__(self, clock):
        super().__init__()
        self.began_ns = clock.now_ns()
        self.results = []

    def observe(self, readable_ns, left_ns, *, is_typical=True):
        instants_ns = readable_ns - self.began_ns, left_ns - self.began_ns
        self.results.append((*(instant_ns // 1_000_000 for instant_ns in instants_ns), is_typical))
        super().observe(readable_ns, left_ns, is_typical=is_typical)


def test_results_count_for_delivery_until_they_leave_and_those_behind_a_frame_of_their_stream_do_not():
    scene = Scene(**EVERY)
    told = scene.version.egress_time = Told(scene.clock)
    scene.write()
    for seq in (1, 2, 3):
        scene.send(seq)
    scene.send(4, budget_ms=-1)
    scene.version.form()
    for _ in range(3):
        scene.version.finish(0)
    scene.clock.advance(2_000_000)
    scene.sink.drain()
    assert told.results == [(0, 2, False), (0, 2, False)]
    scene.clock.advance(3_000_000)
    scene.write()
    assert told.results == [(0, 2, False), (0, 2, False), (0, 5, True)]
    scene.send(5)
    scene.settle()
    assert told.results[3:] == [(5, 5, True)]


def test_results_of_a_client_that_takes_nothing_do_not_count_for_delivery():
    scene = Scene(**EVERY)
    told = scene.version.egress_time = Told(scene.clock)
    scene.write()
    for seq in (1, 2):
        scene.send(seq)
    scene.version.form()
    scene.version.finish()
    scene.sink.drain()
    assert scene.session.next_message() is not None, "now the transport has it, and does not take another"
    assert len(told.results) == 1
    scene.clock.advance(1_000_000)
    scene.version.finish()
    scene.sink.drain()
    assert told.results[1:] == [(1, 1, False)]
    scene.clock.advance(9_000_000)
    scene.write()
    assert len(told.results) == 2


def test_a_result_behind_another_message_does_not_count_for_delivery():
    scene = Scene(**EVERY)
    told = scene.version.egress_time = Told(scene.clock)
    scene.write()
    scene.send(1)
    scene.version.form()
    scene.session.is_writer_idle = False  # a heartbeat, say
    scene.version.finish()
    scene.sink.drain()
    assert told.results == [(0, 0, False)]
    scene.write()
    assert len(told.results) == 1


def test_a_result_whose_client_has_gone_does_not_count_for_delivery():
    scene = Scene(**EVERY)
    told = scene.version.egress_time = Told(scene.clock)
    scene.send(1)
    scene.version.form()
    scene.session.abandon()
    scene.version.finish()
    scene.sink.drain()
    assert told.results == [(0, 0, False)]
