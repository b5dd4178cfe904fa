"""Single cameras on the page and in a scrape: rates, silence, and those that went away."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import Ending, Origin
from forebay_server.service.observe.exposition import render
from forebay_server.service.observe.gone import MAX_GONE
from forebay_server.service.observe.live import MAX_GONE_SHOWN, LiveState
from forebay_server.service.observe.process_use import ProcessUse
from forebay_server.service.observe.recent import stream_reports
from forebay_server.service.observe.stream_exposition import MAX_GONE as MAX_GONE_SERIES
from forebay_server.service.observe.streams import SILENT_S, WORST_SECONDS
from tests.support.observing import MS, SECOND, Observed, no_gauges


class Page:
    """An observed journal, its page and its scrape."""

    def __init__(self):
        self.observed = Observed()
        self.live = LiveState(self.observed.observer, no_gauges(), self.observed.clock)

    def state(self):
        return json.loads(self.live.state().split("data: ")[1])

    def camera(self, name):
        state = self.state()
        return next(each for each in state["streams"] + state["gone"] if each["name"] == name)

    def metrics(self):
        text = render(self.observed.observer, no_gauges(), self.observed.clock.now_ns())
        return {family.name: family.samples for family in text_string_to_metric_families(text)}

    def play(self, record, seconds, fps=10, **frame):
        for _ in range(seconds):
            for _ in range(fps):
                self.observed.clock.advance(SECOND // fps)
                self.observed.frame(record, **frame)
            self.observed.tick(0)


def test_rates_count_the_last_seconds_by_outcome_and_not_since_the_stream_opened():
    page = Page()
    record = page.observed.open("gate", origin=Origin("10.0.0.7:5000", "jpeg", 100.0))
    page.play(record, 30, deadline_ms=100)
    assert (page.camera("gate")["ok"], page.camera("gate")["in_time"]) == (pytest.approx(10, abs=0.2), 1)
    page.play(record, 5, outcome=Outcome.SUPERSEDED)
    page.play(record, 5, total_ms=120, deadline_ms=100, size=(1280, 720), found=4)
    told = page.camera("gate")
    assert (told["ok"], told["offered"]) == (pytest.approx(5, abs=0.2), pytest.approx(10, abs=0.2))
    assert told["in_time"] < 0.02
    assert (told["size"], told["found"]) == ("1280 x 720", 4)
    assert (told["address"], told["encoding"]) == ("10.0.0.7:5000", "jpeg")
    assert told["level"] == "bad"
    labels = {"stream": "gate", "id": str(record.uid), "model": "detector"}
    assert page.metrics()["forebay_stream_in_time_ratio"][0].labels == labels
    assert page.metrics()["forebay_stream_in_time_ratio"][0].value < 0.02


def test_the_line_of_a_camera_is_the_worst_latency_of_each_second():
    page = Page()
    record = page.observed.open("gate")
    page.observed.tick(0)
    for total_ms in (20, 40):
        for each_ms in (total_ms, total_ms + 5):
            page.observed.frame(record, total_ms=each_ms)
        page.observed.frame(record, total_ms=500, outcome=Outcome.EXPIRED)
        page.observed.tick(1000)
    worst = json.loads(page.live.history().split("data: ")[1])["worst"][str(record.uid)]
    assert len(worst) == WORST_SECONDS
    assert [value for value in worst if value is not None] == [25.0, 45.0]
    assert page.camera("gate")["worst"] == 45.0
    page.observed.tick(1000)
    assert page.camera("gate")["worst"] is None


def test_a_camera_is_silent_when_its_frames_stay_out_for_much_longer_than_usual():
    page = Page()
    quick, slow, mute = page.observed.open("quick"), page.observed.open("slow"), page.observed.open("mute")
    page.observed.tick(0)
    for _ in range(4):
        page.play(quick, 20)
        page.observed.frame(slow)  # every 20 s
        page.observed.tick(0)
    assert page.camera("mute")["text"].startswith("no frame since it opened 80 s ago")
    page.observed.tick(int(1000 * SILENT_S) + 500)
    assert page.camera("quick")["text"].startswith("no frame for 11 s")
    assert page.camera("slow")["cause"] != "silent"
    silent = {sample.labels["stream"]: sample.value for sample in page.metrics()["forebay_stream_silent_seconds"]}
    assert set(silent) == {"quick", "mute"}
    assert silent["quick"] == pytest.approx(10.5, abs=0.1)
    assert page.metrics()["forebay_streams_silent"][0].value == 2
    page.observed.tick(100_000)
    assert page.camera("slow")["cause"] == "silent"
    page.observed.frame(quick)
    page.observed.tick(0)
    assert page.camera("quick")["cause"] != "silent"
    assert mute.index >= 0


def test_silent_cameras_are_listed_before_all_others():
    page = Page()
    page.observed.open("mute")
    page.observed.tick(0)
    page.observed.tick(int(1000 * SILENT_S) + 1000)
    for index in range(50):
        page.observed.frame(page.observed.open(f"camera-{index}"), total_ms=900)
    page.observed.tick(0)
    found = stream_reports(page.observed.observer, page.observed.clock.now_ns(), 3)
    assert found.reports[0].record.name == "mute"
    assert found.silent == 1


def test_a_camera_that_went_away_is_remembered_until_it_is_back_or_for_fifteen_minutes():
    page = Page()
    records = {name: page.observed.open(name) for name in ("lost", "ended", "back")}
    page.observed.tick(0)
    for name, record in records.items():
        page.observed.journal.close(record, {}, Ending.ENDED if name == "ended" else Ending.LOST)
    page.observed.tick(0)
    page.observed.tick(120_000)
    page.observed.open("back")
    page.observed.tick(0)
    assert page.camera("lost")["text"] == "gone 2 min ago: its connection broke"
    assert (page.camera("lost")["level"], page.camera("ended")["level"]) == ("bad", "quiet")
    assert [each["name"] for each in page.state()["gone"]] == ["ended", "lost"]
    counts = {sample.labels["ending"]: sample.value for sample in page.metrics()["forebay_streams_gone"]}
    assert counts == {"ended": 1, "lost": 1, "slow": 0, "refused": 0}
    gone = {sample.labels["stream"]: sample for sample in page.metrics()["forebay_stream_gone_seconds"]}
    assert (gone["lost"].value, gone["lost"].labels["ending"]) == (120, "lost")
    page.observed.tick(781_000)
    assert page.state()["gone"] == []
    assert "forebay_stream_gone_seconds" not in page.metrics()


def test_a_camera_with_another_open_stream_or_one_that_reopens_at_once_has_not_gone():
    page = Page()
    first, second = page.observed.open("twin"), page.observed.open("twin")
    page.observed.tick(0)
    page.observed.journal.close(first, {}, Ending.LOST)
    page.observed.tick(0)
    assert page.state()["gone"] == []
    page.observed.journal.close(second, {}, Ending.LOST)
    third = page.observed.open("twin")
    page.observed.tick(0)
    assert page.state()["gone"] == []
    page.observed.journal.close(third, {}, Ending.LOST)
    page.observed.tick(0)
    assert [each["id"] for each in page.state()["gone"]] == [third.uid]


def test_cameras_that_went_away_are_bounded_in_number():
    page = Page()
    for index in range(MAX_GONE + 50):
        page.observed.journal.close(page.observed.open(f"camera-{index}"), {}, Ending.LOST)
        page.observed.tick(1)
    state = page.state()
    assert (state["gone_count"], len(state["gone"])) == (MAX_GONE, MAX_GONE_SHOWN)
    assert state["gone"][0]["name"] == f"camera-{MAX_GONE + 49}"
    assert len(page.metrics()["forebay_stream_gone_seconds"]) == MAX_GONE_SERIES
    assert len(page.observed.observer.gone._open) == 0


def test_cpu_of_a_process_is_what_it_used_between_two_messages():
    gauges = no_gauges().server()
    use = ProcessUse()
    (row,) = use.rows(gauges, [], 0)
    assert (row["name"], row["cpu"], row["streams"]) == ("server", 0, None)
    busier = type(gauges)(**{name: getattr(gauges, name) for name in gauges.__slots__} | {"cpu_s": gauges.cpu_s + 1.5})
    (row,) = use.rows(busier, [], 1000 * MS)
    assert row["cpu"] == 1.5
