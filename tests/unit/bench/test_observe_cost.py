"""The observer counts exactly the records that the bench of observing plays to it."""

from forebay_server.bench.observe_cost import CAMERAS, ROWS_PER_BATCH, ObservedServer
from forebay_server.service.observe.recent import stream_reports


def test_everything_that_is_played_is_counted():
    server = ObservedServer(200)
    server.play(3, ticks_per_s=1)
    (model,) = server.observer.models
    assert model.outcomes.sum() == model.histograms.snapshot(0).count == 600
    assert model.batches == {ROWS_PER_BATCH: 150}
    assert len(server.ticks_us) == 3
    found = stream_reports(server.observer, server.clock.now_ns(), CAMERAS)
    assert all(1 < each.p99_ms < 50 for each in found.reports)
