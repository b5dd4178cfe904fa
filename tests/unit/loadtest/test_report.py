"""Documents, their renderings, and comparisons of them; all from runs in virtual time."""

import functools
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from forebay_server.loadtest import histograms
from forebay_server.loadtest.compare import Change, compare
from forebay_server.loadtest.compare import text as comparison_text
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.html import html
from forebay_server.loadtest.markdown import markdown, text
from forebay_server.loadtest.measure import parse_assertions
from forebay_server.loadtest.output import Outputs, read
from forebay_server.loadtest.report import SCHEMA, Circumstances, build
from forebay_server.loadtest.scenario import ArrivalProcess, Phase, Scenario
from forebay_server.loadtest.summary import summarise
from forebay_server.loadtest.target import Outcome, TargetSpec
from tests.unit.loadtest.virtual import INFO, FakeServer, offer

# The promise of the schema; see docs/loadtest.md.
PROMISED = {
    *("schema", "scenario", "offered", "client_dropped", "sent", "answered", "superseded", "expired", "overloaded"),
    *("failed", "lost", "out_of_order", "goodput_per_s", "p50_ms", "p99_ms", "p99_ci_ms", "service_p99_ms"),
    *("age_p99_ms", "schedule_lag_p99_ms", "verdict", "reasons"),
}
STAGES_US = (100, 2000, 3000, 400, 8000, 500, 1000, 15_000)


def document_of(scenario=None, server=None, assertions=(), ceiling=5000.0, cpu_share=0.1):
    scenario = scenario or Scenario(streams=2, fps=20, duration_s=15)
    server = server or FakeServer(noisy(20), stages_us=STAGES_US)
    summary = summarise(scenario, offer(scenario, server), 100)
    circumstances = Circumstances(
        started_at="2026-01-01T00:00:00+00:00",
        spec=TargetSpec(model="<b>model</b>"),
        info=INFO,
        frames="test frames",
        processes=1,
        hosts=1,
        cpu_shares=(cpu_share,),
        ceiling_per_s=ceiling,
        good_within_ms=100,
    )
    return build(scenario, summary, circumstances, list(parse_assertions(list(assertions))))


@functools.cache
def usual():
    """The document of a usual run; read only."""
    return document_of()


def noisy(mean_ms, seed=1, outcome=Outcome.OK):
    rng = np.random.default_rng(seed)
    return lambda _: (rng.lognormal(np.log(mean_ms), 0.2) / 1e3, [outcome])


def test_failed_frames_are_told_apart_by_their_status():
    server = FakeServer(lambda frame: (0.02, [Outcome.OK if frame % 2 else Outcome.NEEDS_KEYFRAME]))
    document = document_of(server=server)
    assert document["failed_by"] == {"FAILED": 0, "INVALID": 0, "CANCELLED": 0, "NEEDS_KEYFRAME": document["failed"]}
    assert document["failed"] > 0
    assert f"; failed: NEEDS_KEYFRAME {document['failed']}\n" in text(document)
    assert "failed:" not in text(document_of())


def test_a_document_has_what_the_schema_promises_and_is_plain_json():
    document = document_of(assertions=["p99<1s"])
    assert document["schema"] == SCHEMA
    assert set(document) >= PROMISED
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["verdict"], document["exit_code"], document["reasons"]) == ("OK", 0, [])
    low, high = document["p99_ci_ms"]
    assert low <= document["p99_ms"] <= high
    assert document["sent"] == document["answered"] == 600


def test_too_few_samples_are_inconclusive_without_an_interval_and_no_error():
    document = document_of(Scenario(fps=10, duration_s=30))
    assert (document["verdict"], document["exit_code"]) == ("INCONCLUSIVE", 0)
    assert document["p99_ci_ms"] is None
    assert "too few" in document["reasons"][0]


def test_too_few_samples_miss_an_assertion_that_needs_the_number():
    document = document_of(Scenario(fps=2, duration_s=30), assertions=["p99<1s"])
    assert document["p99_ms"] is None
    assert (document["verdict"], document["exit_code"]) == ("SLO_MISSED", 3)


def test_a_short_run_is_inconclusive_however_many_frames_it_has():
    document = document_of(Scenario(streams=4, fps=30, duration_s=5))
    assert document["verdict"] == "INCONCLUSIVE"
    assert any("too short" in reason for reason in document["reasons"])


def test_a_queue_that_grows_is_inconclusive():
    document = document_of(server=FakeServer(lambda number: (0.002 * number, [Outcome.OK])))
    assert document["verdict"] == "INCONCLUSIVE"
    assert "no steady state" in document["reasons"][0]
    assert document["p99_ci_ms"] is None


def test_a_load_that_changes_by_design_has_no_interval():
    document = document_of(Scenario(arrival=ArrivalProcess.STEP, rate_per_s=20, peak_per_s=60, duration_s=20))
    assert document["verdict"] == "INCONCLUSIVE"
    assert document["p99_ms"] is not None
    assert document["p99_ci_ms"] is None


def test_a_server_that_answers_nothing_has_no_latencies():
    document = document_of(server=FakeServer(lambda _: (0.01, [])))
    assert document["verdict"] == "INCONCLUSIVE"
    assert document["reasons"][0] == "none of 600 frames was answered"
    assert document["p50_ms"] is document["p99_ms"] is None
    assert document["lost"] == 600
    for render in (html, markdown, text):
        assert render(document)


def test_goodput_counts_answers_in_time_against_everything_offered():
    def answer(number):
        return (0.2 if number % 4 == 0 else 0.01), [Outcome.EXPIRED if number % 4 == 1 else Outcome.OK]

    document = document_of(server=FakeServer(answer))
    assert document["goodput_share"] == 0.5
    assert document["goodput_per_s"] == 20.0
    assert document["dropped_share"] == 0.25


def test_a_duplicate_makes_the_run_invalid():
    document = document_of(server=FakeServer(lambda n: (0.01, [Outcome.OK] * (1 + (n == 9)))))
    assert (document["verdict"], document["exit_code"]) == ("INVALID", 4)


def test_an_injected_stall_and_dropped_frame_are_named_with_their_stream_and_time():
    """Frames 100 and 150 of a stream of 20 fps are due at about 5 and 7.5 s."""

    def answer(number):
        if number == 150:
            return 0.0, []
        return 0.060 if number == 100 else 0.010, [Outcome.OK]

    document = document_of(Scenario(fps=20, duration_s=15, phase=Phase.ALIGNED, drain_s=1), FakeServer(answer))
    worst, second = document["slowest"][:2]
    assert (worst["stream"], worst["due_s"], worst["latency_ms"]) == (0, pytest.approx(4.95), pytest.approx(60, abs=1))
    assert second["latency_ms"] == pytest.approx(10, abs=1)
    assert document["lost_frames"] == [{"stream": 0, "due_s": pytest.approx(7.45)}]
    shown = text(document)
    assert "never answered: stream 0 at 7.45 s" in shown
    assert re.search(r"slowest answer +6\d\.\d+ ms, stream 0, due at 4\.95 s", shown)
    assert "60." in html(document).split("Slowest answers")[1]


def test_a_ceiling_near_the_tested_rate_and_a_closed_loop_are_noted():
    assert any("null server" in note for note in document_of(ceiling=100.0)["notes"])
    assert any("more --processes" in note for note in document_of(cpu_share=0.95)["notes"])
    closed = document_of(Scenario(arrival=ArrivalProcess.CLOSED, duration_s=5), FakeServer(noisy(20)))
    assert any("closed loop" in note for note in closed["notes"])


class _Checker(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.tags = set()
        self.links = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "link"} and tag not in {"line", "rect", "circle", "polyline"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag not in {"line", "rect", "circle", "polyline"}:
            assert self.open.pop() == tag


def test_the_html_report_is_well_formed_self_contained_and_escapes_what_it_is_told():
    page = html(usual())
    checker = _Checker()
    checker.feed(page)
    assert not checker.open
    assert not {"script", "img", "iframe"} & checker.tags
    assert checker.links == ["data:,"]
    assert "<b>model</b>" not in page
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        ET.fromstring(chart)  # noqa: S314  # our own text
    assert "nan" not in page.lower().replace("nanodet", "")


def test_the_text_and_markdown_reports_state_the_accounting_and_the_verdict():
    document = document_of(assertions=["lost=0", "p99<1ms"])
    for body in (text(document), markdown(document)):
        assert "SLO_MISSED" in body
        assert "p99<1ms: does not hold" in body
    assert "sent 600 = answered 600 + superseded 0" in text(document)
    assert "| offered | sent |" in markdown(document)


def test_reports_are_written_where_asked_and_read_back(tmp_path, capsys):
    document = usual()
    paths = {name: str(tmp_path / f"run.{name}") for name in ("json", "html", "markdown", "hgrm")}
    outputs = Outputs(**paths)
    outputs.check()
    outputs.write(document)
    assert read(tmp_path / "run.json") == document
    assert "verdict: OK" in capsys.readouterr().out
    assert (tmp_path / "run.hgrm").read_text().count("\n") > 10
    Outputs(json="-").write(document)
    assert json.loads(capsys.readouterr().out)["verdict"] == "OK"


def test_a_report_that_cannot_be_written_or_read_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        Outputs(json=str(tmp_path / "none" / "run.json")).check()
    with pytest.raises(UsageError, match="one report"):
        Outputs(json="-", html="-").check()
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"schema": "other/1"}')
    with pytest.raises(UsageError, match="no report"):
        read(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="no JSON"):
        read(tmp_path / "broken.json")


def test_blocks_of_a_document_hold_every_latency_after_the_cut():
    document = usual()
    blocks = document["latency_blocks"]
    assert histograms.merge(blocks["hdr"]).get_total_count() == document["samples"]
    assert len(blocks["hdr"]) >= 13


@pytest.mark.parametrize(
    ("mean_ms", "change"), [(20, Change.SAME), (20.3, Change.SAME), (30, Change.WORSE), (13, Change.BETTER)]
)
def test_comparing_says_what_changed(mean_ms, change):
    a = usual()
    b = document_of(server=FakeServer(noisy(mean_ms, seed=7)))
    comparison = compare(a, b)
    assert comparison.verdict is change
    assert f"B is {change.value}" in comparison_text(comparison)
    assert json.dumps(comparison.to_dict())


def test_shedding_more_frames_is_worse_even_when_the_rest_is_as_fast():
    def shed(number):
        return 0.02, [Outcome.OVERLOADED if number % 3 == 0 else Outcome.OK]

    a, b = usual(), document_of(server=FakeServer(shed))
    assert compare(a, b).verdict is Change.WORSE


def test_runs_that_cannot_be_compared_are_not_judged():
    a = usual()
    other_load = document_of(Scenario(streams=4, fps=20, duration_s=15))
    assert compare(a, other_load).verdict is Change.UNKNOWN
    short = document_of(Scenario(streams=2, fps=20, duration_s=5))
    assert compare(a, short).verdict is Change.UNKNOWN
    invalid = document_of(server=FakeServer(lambda n: (0.01, [Outcome.OK] * (1 + (n == 9)))))
    assert compare(a, invalid).verdict is Change.UNKNOWN
