import json

import numpy as np

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import REQUESTS
from forebay_server.service.observe.exposition import render
from forebay_server.service.observe.frames import OUTCOMES, STAGES
from forebay_server.service.observe.live import MAX_STREAMS, LiveState
from forebay_server.service.observe.model_counts import HISTORY_SECONDS
from forebay_server.service.observe.observer import NAMES_KEPT
from forebay_server.service.observe.recent import stream_reports
from tests.support.observing import MS, SECOND, Observed, no_gauges


def counts(model):
    return {outcome: n for outcome, n in zip(OUTCOMES, model.outcomes.tolist(), strict=True) if n}


def report(observed, record):
    found = stream_reports(observed.observer, observed.clock.now_ns(), 1000)
    return next(each for each in found.reports if each.record is record)


def test_frames_are_counted_by_model_and_outcome():
    observed = Observed()
    first, second = observed.open(), observed.open("other", model="faces")
    for _ in range(3):
        observed.frame(first)
    observed.frame(first, outcome=Outcome.EXPIRED)
    observed.frame(second)
    observed.tick()
    detector, faces = observed.observer.models
    assert counts(detector) == {Outcome.OK: 3, Outcome.EXPIRED: 1}
    assert counts(faces) == {Outcome.OK: 1}
    assert detector.histograms.snapshot(STAGES.index("total")).count == 3  # of frames that ended well


def test_a_stream_that_closes_brings_what_the_journal_did_not_tell():
    observed = Observed()
    record = observed.open()
    observed.frame(record)
    observed.tick()
    observed.journal.close(record, {Outcome.OK: 2, Outcome.CANCELLED: 3})
    observed.tick()
    assert counts(observed.observer.models[0]) == {Outcome.OK: 2, Outcome.CANCELLED: 3}
    assert len(observed.observer.streams) == 0


def test_a_stream_that_opens_and_closes_between_ticks_is_counted_once():
    observed = Observed()
    record = observed.open()
    observed.frame(record)
    observed.journal.close(record, {Outcome.OK: 1})
    observed.tick()
    assert counts(observed.observer.models[0]) == {Outcome.OK: 1}


def test_a_request_that_ends_after_its_version_has_closed_counts_for_its_own_model():
    observed = Observed()
    requests = observed.open(REQUESTS, protocol="inference")
    observed.frame(requests)
    observed.journal.close(requests, {})
    observed.tick()
    camera = observed.open(model="faces")  # at the index of the closed one
    observed.tick()
    observed.frame(requests, outcome=Outcome.CANCELLED)
    observed.tick()
    detector, faces = observed.observer.models
    assert counts(detector) == {Outcome.OK: 1, Outcome.CANCELLED: 1}
    assert counts(faces) == {}
    assert observed.observer.streams.outcomes[camera.index].sum() == 0


def test_the_requests_of_a_version_are_no_open_stream():
    observed = Observed()
    observed.open()
    observed.open(REQUESTS, protocol="inference")
    observed.open(REQUESTS, protocol="inference", model="faces")
    observed.tick()
    assert observed.observer.streams.count_of("frames", 2) == [1, 0]


def test_late_frames_are_ok_but_not_in_time():
    observed = Observed()
    record = observed.open()
    observed.frame(record, total_ms=30, deadline_ms=20)
    observed.frame(record, total_ms=10, deadline_ms=20)
    observed.tick(1000)
    model = observed.observer.models[0]
    assert model.late == 1
    assert (model.history[-1].ended, model.history[-1].in_time) == (2, 1)
    assert report(observed, record).numbers.rates.late_per_s == 1


def test_history_has_a_sample_a_second_and_a_bound():
    observed = Observed()
    record = observed.open()
    observed.tick()
    observed.frame(record, total_ms=20)
    observed.frame(record, total_ms=40)
    observed.tick(1000)
    model = observed.observer.models[0]
    assert (model.history[-1].p50_ms, model.history[-1].p99_ms) == (20.0, 40.0)
    observed.tick(2000)
    assert model.history[-1].p50_ms is None
    observed.tick(10_000_000)
    assert len(model.history) == HISTORY_SECONDS


def test_age_leaves_out_the_difference_of_the_clocks():
    observed = Observed()
    record = observed.open()
    wrong_by_us = 5_000_000_000
    for network_ms, total_ms in ((40, 20), (5, 20), (5, 60)):
        captured_ns = observed.clock.now_ns() - int((network_ms + total_ms) * MS)
        observed.frame(record, total_ms, capture_us=captured_ns // 1000 - wrong_by_us)
        observed.tick()
    age_ms = report(observed, record).numbers.age_ms
    assert age_ms == 55.0  # of 55, 20 and 60; the quickest way took 5 ms and is left out
    assert observed.observer.models[0].ages.snapshot(0).count == 3


def test_there_is_no_age_without_capture_times_or_with_a_clock_that_jumps():
    observed = Observed()
    silent, jumping = observed.open(), observed.open("jumps")
    observed.frame(silent)
    observed.frame(jumping, capture_us=1_000_000_000_000)
    observed.tick()
    observed.frame(jumping, capture_us=1)
    observed.tick()
    assert report(observed, silent).numbers.age_ms is None
    assert report(observed, jumping).numbers.age_ms == 20.0  # of the one before the jump


def test_reports_tell_rate_and_quantiles_of_each_stream():
    observed = Observed()
    quick, slow = observed.open("quick"), observed.open("slow")
    observed.tick()
    for _ in range(20):
        observed.clock.advance(100 * MS)
        observed.frame(quick, 10)
        observed.frame(slow, 50)
    observed.tick(0)
    assert report(observed, quick).numbers.rates.of(Outcome.OK) == 10
    assert (report(observed, quick).p99_ms, report(observed, slow).p99_ms) == (10.0, 50.0)


def test_places_are_given_out_again_without_mixing_streams():
    observed = Observed()
    for index in range(300):
        record = observed.open(f"camera-{index}")
        observed.frame(record)
        observed.tick()
        observed.journal.close(record, {Outcome.OK: 1})
        observed.tick()
    last = observed.open("last")
    observed.tick()
    assert report(observed, last).numbers.rates.ended == 0
    assert report(observed, last).numbers.p50_ms is None
    assert counts(observed.observer.models[0]) == {Outcome.OK: 300}
    assert len(observed.observer.streams.late) == 64  # the table grows with open streams, not with time


def test_ten_thousand_streams_have_a_place_each():
    observed = Observed()
    records = [observed.open(f"camera-{index}") for index in range(10_000)]
    for record in records:
        observed.frame(record)
    observed.tick()
    assert len(observed.observer.streams) == 10_000
    assert counts(observed.observer.models[0]) == {Outcome.OK: 10_000}
    for index in range(5):  # the last five, slower from one to the next
        observed.frame(records[-1 - index], total_ms=100 + index)
    observed.tick()
    found = stream_reports(observed.observer, observed.clock.now_ns(), 3)
    assert [each.record.name for each in found.reports] == ["camera-9995", "camera-9996", "camera-9997"]
    assert found.count == 10_000
    assert found.rest_ok_per_s > 0


def test_what_the_page_and_a_scrape_say_of_ten_thousand_streams_is_bounded():
    observed = Observed()
    names = ['quo"te', "new\nline", "\N{PILE OF POO}" * 3000, "x" * 10_000, ""]
    for index in range(10_000):
        observed.frame(observed.open(names[index % len(names)] + str(index)))
    observed.tick()
    live = LiveState(observed.observer, no_gauges(), observed.clock)
    state = live.state()
    told = json.loads(state.split("data: ")[1])
    assert len(state) < 120_000
    assert len(live.history()) < 120_000
    assert (told["stream_count"], len(told["streams"])) == (10_000, MAX_STREAMS)
    assert len(render(observed.observer, no_gauges(), observed.clock.now_ns())) < 60_000


def test_batches_are_counted_by_size_and_time():
    observed = Observed()
    observed.batch(0, rows=4)
    observed.batch(5, rows=8)
    observed.tick()
    model = observed.observer.models[0]
    assert model.batches == {4: 1, 8: 1}
    assert model.busy_ns == [2 * MS, 16 * MS, 2 * MS]


def test_nothing_grows_over_a_day_of_frames_and_of_streams_that_come_and_go():
    observed = Observed()
    observer = observed.observer

    def sizes():
        return (
            len(observer._by_uid),
            len(observer._closed_uids),
            len(observer.streams.late),
            len(observer.models[0].history),
            len(observer.models),
            observer.frames._rows.shape,
        )

    def half_a_day():
        for _ in range(144):
            for _ in range(30):
                record = observed.open("camera")
                observed.frame(record)
                observed.journal.close(record, {Outcome.OK: 1})
            observed.batch(0)
            observed.tick(300_000)

    half_a_day()
    before = sizes()
    half_a_day()
    assert sizes() == before
    assert before[0] == NAMES_KEPT
    assert observed.clock.now_ns() - 1000 * SECOND == 86_400 * SECOND


def test_histograms_of_a_snapshot_agree_with_their_count():
    observed = Observed()
    record = observed.open()
    for total_ms in np.linspace(1, 400, 100):
        observed.frame(record, float(total_ms), execute_ms=0.5)
    observed.tick()
    shot = observed.observer.models[0].histograms.snapshot(STAGES.index("total"))
    assert sum(shot.counts) == shot.count == 100
    assert abs(shot.sum_s - 20.05) < 0.01
