"""A session answers every frame once and in order, keeps its window, and leaves nothing behind."""

import gc
import weakref

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from forebay.wire import frames_pb2 as pb
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.errors import BatchFailedError, InvalidRequestError, InvariantError, Outcome
from forebay_server.service.frontend.frames import decoder as decoder_module
from forebay_server.service.pictures.device_picture import FilePicture, FilePlace
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import Feasibility
from tests.support.front_end import SessionHarness, by_reason, specs_of

EVERY = {"delivery": pb.DELIVERY_EVERY}
ON_A_WORKER = {"encoding": pb.ENCODING_RGB8, "width": 6, "height": 6}
JPEG = {"encoding": pb.ENCODING_JPEG}


def jpeg(value=128, size=(6, 6)):
    return cv2.imencode(".jpg", np.full((*size, 3), value, np.uint8))[1].tobytes()


def test_results_follow_the_order_of_arrival_whatever_ends_first():
    harness = SessionHarness(**EVERY)
    for seq in (1, 2, 3):
        harness.send(seq)
    harness.version.form()
    harness.version.finish(2)
    harness.version.finish(1)
    harness.sink.drain()
    assert harness.write() == 0
    assert harness.output_calls == 0
    harness.version.finish(0)
    harness.sink.drain()
    assert harness.output_calls == 1
    harness.write()
    assert harness.codes == [(1, "OK"), (2, "OK"), (3, "OK")]
    assert [r.tensors[0].data[0] for r in harness.results] == [1, 2, 3]
    assert [r.capture_time_us for r in harness.results] == [-1, -2, -3]


def test_a_file_goes_to_a_device_where_its_own_buffer_has_room_for_it():
    """Buffers of one version may lie before several engine processes, of which one decodes files."""
    side, file = 64, jpeg(size=(64, 64))
    picture = PictureInput(side, side, "RGB")
    specs = specs_of(((side, side, 3),), ((side, side, 3),))
    harness = SessionHarness(image=picture, specs=specs, **EVERY, **JPEG)
    decoding = harness.version.arena.free[-1]
    place = FilePlace(0, picture.nbytes, side * side)
    harness.version.arena.place_of = lambda lease: place if lease.host is decoding else None
    harness.send(0, file)
    harness.send(1, file)
    while harness.pool.run_one():
        pass
    by_device, by_cpu = harness.version.form()
    assert by_device.picture == FilePicture(0, len(file), (side, side))
    assert by_cpu.picture is None
    sent, decoded = (harness.version._inputs[request.id][0] for request in (by_device, by_cpu))
    assert sent[: len(file)].tobytes() == file
    assert np.abs(decoded.astype(int) - 128).max() <= 1
    assert harness.version.statistics.snapshot().pictures == {"device": 1}


def test_a_refused_frame_takes_its_place_and_its_stream_goes_on():
    harness = SessionHarness(**EVERY)
    harness.send(5)
    harness.send(5)
    harness.send(6, payload=b"short")
    harness.send(7, budget_ms=float("nan"))
    harness.send(8, budget_ms=-1)
    harness.send(9)
    harness.settle()
    assert harness.codes == [(5, "OK"), (5, "INVALID"), (6, "INVALID"), (7, "INVALID"), (8, "INVALID"), (9, "OK")]
    assert "at least 6" in harness.results[1].status.message
    assert "48" in harness.results[2].status.message
    assert "frame.latency_budget_ms" in harness.results[3].status.message


@pytest.mark.parametrize("fields", [{}, ON_A_WORKER], ids=["on the loop", "on a worker"])
def test_an_exception_that_nobody_foresaw_ends_its_frame_and_not_the_stream(fields):
    harness = SessionHarness(**EVERY, **fields)

    def no_memory():
        raise MemoryError("secret")

    harness.version.arena.on_write = no_memory
    for seq in (1, 2):
        with capture_logs() as logs:
            harness.send(seq)
            while harness.pool.run_one():
                pass
        assert [line["log_level"] for line in logs] == (["error"] if seq == 1 else [])
    harness.settle()
    assert harness.codes == [(1, "FAILED"), (2, "OK")]
    assert harness.results[0].status.message == "internal error; the server's log has the details"
    assert harness.version.arena.leases == []


def test_a_frame_that_was_refused_for_its_size_has_used_its_seq():
    harness = SessionHarness(**EVERY)
    harness.send(5, payload=b"")
    harness.send(5)
    harness.settle()
    assert harness.codes == [(5, "INVALID"), (5, "INVALID")]


def test_seqs_below_resume_from_are_invalid():
    harness = SessionHarness(resume_from=100, **EVERY)
    harness.send(99)
    harness.send(100)
    harness.settle()
    assert harness.codes == [(99, "INVALID"), (100, "OK")]


def test_the_largest_seq_ends_the_rise():
    harness = SessionHarness(**EVERY)
    harness.send(2**64 - 1)
    harness.send(2**64 - 1)
    harness.settle()
    assert harness.codes == [(2**64 - 1, "OK"), (2**64 - 1, "INVALID")]


def test_a_budget_that_cannot_be_met_expires_without_a_lease():
    harness = SessionHarness(latency_budget_ms=10)
    harness.version.feasibility = Feasibility(least_service_ns=10_000_001)
    harness.send(1)
    assert not harness.version.arena.leases
    harness.write()
    assert harness.codes == [(1, "EXPIRED")]


def test_a_frames_own_budget_overrides_the_streams():
    harness = SessionHarness(latency_budget_ms=10)
    harness.version.feasibility = Feasibility(least_service_ns=20_000_000)
    harness.send(1, budget_ms=20)
    assert len(harness.version.pending) == 1
    harness.settle()


def test_a_budget_of_zero_is_already_past():
    harness = SessionHarness(**EVERY)
    harness.clock.advance(1)
    harness.version.feasibility = Feasibility(least_service_ns=1)
    harness.send(1, budget_ms=0)
    harness.write()
    assert harness.codes == [(1, "EXPIRED")]


def test_without_a_permit_a_frame_is_overloaded_and_says_so_in_its_place():
    harness = SessionHarness(permits=1, **EVERY)
    harness.send(1)
    harness.send(2)
    harness.settle()
    harness.send(3)
    harness.settle()
    assert harness.codes == [(1, "OK"), (2, "OVERLOADED"), (3, "OK")]


def test_every_has_room_for_its_window_and_latest_for_two():
    for fields, capacity in ((EVERY, 2), ({}, 4)):
        harness = SessionHarness(max_in_flight=2, **fields)
        seq = 0
        while harness.session.has_room:
            seq += 1
            harness.send(seq)
        assert seq == capacity
        harness.version.form()
        while harness.version.executing:
            harness.version.finish()
        harness.sink.drain()
        assert not harness.session.has_room, "room comes when a result is handed to the transport, not before"
        assert harness.session.next_message() is not None
        assert harness.session.has_room
        assert harness.room_calls == 1
        harness.write()
        assert harness.room_calls == 1


def test_a_newer_frame_takes_the_place_of_one_still_encoded():
    harness = SessionHarness(**ON_A_WORKER)
    for seq in (1, 2, 3):
        harness.send(seq)
    assert len(harness.version.arena.leases) == 1
    harness.settle()
    assert harness.codes == [(1, "SUPERSEDED"), (2, "SUPERSEDED"), (3, "OK")]


def test_every_decodes_all_frames_in_order():
    harness = SessionHarness(**ON_A_WORKER, **EVERY)
    for seq in (1, 2, 3):
        harness.send(seq)
    harness.settle()
    assert harness.codes == [(1, "OK"), (2, "OK"), (3, "OK")]
    assert [r.tensors[0].data[0] for r in harness.results] == [1, 2, 3]


def test_a_frame_refused_by_the_worker_takes_its_place():
    harness = SessionHarness(**JPEG, **EVERY)
    harness.send(1, jpeg())
    harness.send(2, jpeg()[:-50])
    harness.send(3, jpeg())
    harness.settle()
    assert harness.codes == [(1, "OK"), (2, "INVALID"), (3, "OK")]
    assert not harness.version.arena.leases


def test_a_refused_newer_frame_leaves_the_older_one_its_place():
    harness = SessionHarness(**ON_A_WORKER)
    harness.send(1)
    harness.send(2, payload=b"short")
    harness.settle()
    assert harness.codes == [(1, "OK"), (2, "INVALID")]


def test_a_budget_can_run_out_while_the_frame_waits_for_a_decoder():
    harness = SessionHarness(latency_budget_ms=10, **ON_A_WORKER)
    harness.send(1)
    harness.clock.advance(10_000_001)
    harness.settle()
    assert harness.codes == [(1, "EXPIRED")]
    assert not harness.version.arena.leases


def test_one_slow_decode_does_not_refuse_frames_for_ever():
    harness = SessionHarness(latency_budget_ms=10, **ON_A_WORKER)
    harness.send(1)
    harness.version.arena.on_write = lambda: harness.clock.advance(1_000_000_000)
    harness.settle()
    seqs = range(2, 60)
    for seq in seqs:
        harness.send(seq)
        harness.settle()
    codes = dict(harness.codes)
    assert codes[2] == "EXPIRED"
    assert codes[59] == "OK"


def test_slow_decodes_are_forgotten_within_a_second_however_few_frames_come():
    harness = SessionHarness(latency_budget_ms=10, **ON_A_WORKER)
    harness.version.arena.on_write = lambda: harness.clock.advance(100_000_000_000)
    for seq, wait_ms in ((1, 100), (2, 500), (3, 500), (4, 0)):
        harness.send(seq)
        harness.settle()
        harness.clock.advance(wait_ms * 1_000_000)
    assert [code for seq, code in harness.codes if seq > 1] == ["EXPIRED", "EXPIRED", "OK"]


def test_a_large_tensor_is_copied_by_a_worker():
    side = 600
    nbytes = side * side * 3
    assert nbytes > decoder_module.INLINE_COPY_BYTES
    shape = (side, side, 3)
    harness = SessionHarness(image=None, specs=specs_of((shape,), (shape,)), **EVERY)
    payload = np.random.default_rng(3).integers(0, 255, nbytes, np.uint8).tobytes()
    harness.send(1, payload)
    assert not harness.version.pending
    harness.settle()
    assert harness.results[0].tensors[0].data == payload
    assert tuple(harness.results[0].tensors[0].shape) == shape


def test_inputs_lie_one_after_the_other_in_the_payload_and_apart_in_the_buffer():
    harness = SessionHarness(image=None, specs=specs_of(((2,), (3,)), ((2,), (3,))), **EVERY)
    harness.send(1, b"abcde")
    harness.settle()
    assert [tensor.data for tensor in harness.results[0].tensors] == [b"ab", b"cde"]


def test_a_batch_that_failed_answers_its_frames_as_failed():
    harness = SessionHarness(**EVERY)
    harness.send(1)
    harness.version.form()
    harness.version.finish(error=BatchFailedError("the model failed on this batch"))
    harness.sink.drain()
    harness.write()
    assert harness.codes == [(1, "FAILED")]
    assert harness.session.outcomes == {Outcome.FAILED: 1}


def test_half_close_answers_what_was_read_and_finishes():
    harness = SessionHarness(**EVERY)
    harness.send(1)
    harness.session.stop_reading()
    assert not harness.session.is_finished
    harness.settle()
    assert harness.session.is_finished
    assert harness.codes == [(1, "OK")]


def test_half_close_of_an_idle_stream_wakes_the_writer():
    harness = SessionHarness()
    harness.session.stop_reading()
    assert harness.output_calls == 1
    assert harness.session.is_finished


def test_abandon_cancels_what_waits_and_drops_what_executes():
    harness = SessionHarness(permits=8, **EVERY)
    harness.send(1)
    harness.version.form()
    harness.send(2)
    harness.send(3)
    harness.session.abandon()
    assert harness.session.is_finished
    assert not harness.version.pending
    assert not harness.version.arena.leases
    harness.settle()
    assert harness.results == []
    assert harness.output_calls == 0
    assert harness.session.outcomes == {Outcome.CANCELLED: 3}


def test_abandon_takes_encoded_frames_out_of_their_queue():
    harness = SessionHarness(**ON_A_WORKER, **EVERY)
    harness.send(1)
    harness.send(2)
    harness.session.abandon()
    assert not harness.version.arena.leases
    harness.settle()
    assert harness.results == []
    assert harness.version.statistics.snapshot().failures == {"CANCELED": 2}


def test_abandon_while_a_worker_decodes_gives_the_lease_back_and_delivers_nothing():
    harness = SessionHarness(**ON_A_WORKER, **EVERY)
    harness.send(1)
    harness.version.arena.on_write = harness.session.abandon
    harness.settle()
    assert harness.results == []
    assert harness.output_calls == 0
    assert not harness.version.arena.leases
    assert harness.session.outcomes == {Outcome.CANCELLED: 1}


def test_abandon_while_a_worker_refuses_gives_the_lease_back():
    harness = SessionHarness(**JPEG, **EVERY)
    harness.send(1, b"no JPEG")
    harness.version.arena.on_write = harness.session.abandon
    harness.settle()
    assert harness.results == []
    assert not harness.version.arena.leases


@pytest.mark.parametrize("payload", [jpeg(), b"no JPEG"], ids=["good", "bad"])
def test_messages_that_wait_for_a_decoder_are_bounded_in_bytes_and_reading_goes_on_when_one_is_answered(
    monkeypatch, payload
):
    monkeypatch.setattr(decoder_module, "MOST_WAITING_BYTES", 2 * len(payload))
    harness = SessionHarness(**JPEG, **EVERY, max_in_flight=8)
    for seq in (1, 2):
        harness.send(seq, payload)
        assert harness.session.has_room
    harness.send(3, payload)
    assert not harness.session.has_room
    harness.pool.run_one()
    calls = harness.room_calls
    harness.version.form()
    while harness.version.executing:
        harness.version.finish()
    harness.sink.drain()
    harness.write()
    assert harness.session.has_room
    assert harness.room_calls > calls
    harness.settle()
    assert len(harness.results) == 3


def test_frames_that_give_way_to_newer_ones_do_not_count_as_waiting_bytes(monkeypatch):
    monkeypatch.setattr(decoder_module, "MOST_WAITING_BYTES", 2 * len(jpeg()))
    harness = SessionHarness(**JPEG, delivery=pb.DELIVERY_LATEST)
    for seq in range(1, 9):
        harness.send(seq, jpeg())
        assert harness.session.has_room
    harness.session.abandon()
    harness.settle()


def test_what_a_worker_ends_is_counted_once():
    harness = SessionHarness(**JPEG, delivery=pb.DELIVERY_LATEST)
    harness.send(1, b"no JPEG")
    harness.pool.run_one()
    harness.send(2, jpeg())
    harness.send(3, jpeg())  # takes the place of the one before, which no worker has begun
    harness.settle()
    assert harness.codes == [(1, "INVALID"), (2, "SUPERSEDED"), (3, "OK")]
    assert harness.version.statistics.snapshot().failures == {"OTHER": 1, "REJECTED": 1}


def test_abandon_of_an_idle_stream_tells_the_former_nothing():
    harness = SessionHarness()
    harness.session.abandon()  # the strict version refuses an empty cancellation
    assert harness.session.is_finished


def test_a_bug_of_ours_ends_the_stream_and_is_no_answer():
    harness = SessionHarness(**EVERY)
    harness.version.arrive = broken_arrive
    with pytest.raises(InvariantError):
        harness.send(1)


def broken_arrive(_):
    raise InvariantError("the inbox is full")


def test_outputs_are_freed_as_soon_as_their_result_is_built():
    harness = SessionHarness(**EVERY)
    harness.send(1)
    harness.version.form()
    harness.version.finish()
    outputs = weakref.ref(harness.sink.posted[0].outputs[0])
    gc.disable()
    try:
        harness.sink.drain()
        harness.write()
        assert outputs() is None, "a reference cycle keeps the completion"
    finally:
        gc.enable()


@pytest.mark.parametrize("fields", [{}, ON_A_WORKER, JPEG])
def test_a_client_that_goes_leaves_nothing_to_the_collector_of_cycles(fields):
    harness = SessionHarness(**fields, **EVERY)
    for seq in range(1, 5):
        harness.send(seq, jpeg() if fields is JPEG else None)
        if seq < 4:
            harness.pool.run_one()  # the fourth waits for a decoder, where there is one
    formed = harness.version.form()
    harness.version.finish()
    harness.version.finish()
    held = [weakref.ref(completion.outputs[0]) for completion in harness.sink.posted]
    held += [weakref.ref(harness.session), *(weakref.ref(request.on_completion) for request in formed)]
    del formed
    gc.disable()
    try:
        harness.sink.drain()
        harness.session.abandon()
        harness.pool.run_one()
        harness.version.form()
        while harness.version.executing:
            harness.version.finish()
        harness.sink.drain()
        harness.session = None
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


def test_a_refused_frame_keeps_no_payload_alive():
    harness = SessionHarness(**JPEG, **EVERY)
    payload = np.frombuffer(b"no JPEG", np.uint8)
    watched = weakref.ref(payload)
    harness.send(1, payload)
    del payload
    gc.disable()
    try:
        harness.pool.run_one()
        harness.sink.drain()
        assert watched() is None, "the error keeps the frame that it refuses"
    finally:
        gc.enable()
    harness.write()
    assert harness.codes == [(1, "INVALID")]


def test_time_that_a_refused_frame_waits_for_its_turn_is_delivery():
    harness = SessionHarness(**EVERY)
    harness.send(1)
    harness.send(1)
    harness.version.form()
    harness.clock.advance(7_000_000)
    harness.version.finish()
    harness.sink.drain()
    harness.clock.advance(1_000_000)
    harness.write()
    done, refused = (result.timings for result in harness.results)
    assert (done.queue_us, done.deliver_us, done.server_total_us) == (7000, 1000, 8000)
    assert (refused.receive_us, refused.deliver_us, refused.server_total_us) == (0, 8000, 8000)


class Told(EgressTime):
    """The times of results that a session reports to its version's former, in milliseconds since it began."""

    def __init__(self, clock):
        super().__init__()
        self.began_ns = clock.now_ns()
        self.results = []

    def observe(self, readable_ns, left_ns, *, is_typical=True):
        instants_ns = readable_ns - self.began_ns, left_ns - self.began_ns
        self.results.append((*(instant_ns // 1_000_000 for instant_ns in instants_ns), is_typical))
        super().observe(readable_ns, left_ns, is_typical=is_typical)


def test_results_count_for_delivery_until_they_leave_and_those_behind_a_frame_of_their_stream_do_not():
    harness = SessionHarness(**EVERY)
    told = harness.version.egress_time = Told(harness.clock)
    harness.write()
    for seq in (1, 2, 3):
        harness.send(seq)
    harness.send(4, budget_ms=-1)
    harness.version.form()
    for _ in range(3):
        harness.version.finish(0)
    harness.clock.advance(2_000_000)
    harness.sink.drain()
    assert told.results == [(0, 2, False), (0, 2, False)]
    harness.clock.advance(3_000_000)
    harness.write()
    assert told.results == [(0, 2, False), (0, 2, False), (0, 5, True)]
    harness.send(5)
    harness.settle()
    assert told.results[3:] == [(5, 5, True)]


def test_results_of_a_client_that_takes_nothing_do_not_count_for_delivery():
    harness = SessionHarness(**EVERY)
    told = harness.version.egress_time = Told(harness.clock)
    harness.write()
    for seq in (1, 2):
        harness.send(seq)
    harness.version.form()
    harness.version.finish()
    harness.sink.drain()
    assert harness.session.next_message() is not None, "now the transport has it, and does not take another"
    assert len(told.results) == 1
    harness.clock.advance(1_000_000)
    harness.version.finish()
    harness.sink.drain()
    assert told.results[1:] == [(1, 1, False)]
    harness.clock.advance(9_000_000)
    harness.write()
    assert len(told.results) == 2


def test_a_result_behind_another_message_does_not_count_for_delivery():
    harness = SessionHarness(**EVERY)
    told = harness.version.egress_time = Told(harness.clock)
    harness.write()
    harness.send(1)
    harness.version.form()
    harness.session.is_writer_idle = False  # a heartbeat, say
    harness.version.finish()
    harness.sink.drain()
    assert told.results == [(0, 0, False)]
    harness.write()
    assert len(told.results) == 1


def test_a_result_whose_client_has_gone_does_not_count_for_delivery():
    harness = SessionHarness(**EVERY)
    told = harness.version.egress_time = Told(harness.clock)
    harness.send(1)
    harness.version.form()
    harness.session.abandon()
    harness.version.finish()
    harness.sink.drain()
    assert told.results == [(0, 0, False)]


def test_a_frame_that_has_ended_when_its_client_leaves_counts_as_it_ended():
    harness = SessionHarness(**EVERY)
    for seq in range(1, 4):
        harness.send(seq)
    harness.version.form()
    harness.version.finish()  # the event loop has not come to its completion
    harness.session.abandon()
    harness.settle()
    assert harness.session.outcomes == {Outcome.OK: 1, Outcome.CANCELLED: 2}
    assert by_reason(harness.session.outcomes) == harness.version.counted


def test_a_frame_that_a_worker_finds_wrong_after_its_client_has_left_was_cancelled():
    harness = SessionHarness(encoding=pb.ENCODING_RGB8, width=6, height=6)
    harness.send(1)

    def fail():
        harness.session.abandon()
        raise InvalidRequestError("as the test asks")

    harness.version.arena.on_write = fail
    harness.pool.run_one()
    assert harness.session.outcomes == {Outcome.CANCELLED: 1}
    assert harness.version.counted == {"CANCELED": 1}
