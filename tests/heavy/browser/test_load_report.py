"""The HTML report of a load test in a real browser. The run is in virtual time, the command writes the report.

FOREBAY_SCREENSHOTS=docs/images keeps the pictures; otherwise they go to a temporary folder.
"""

import os
from pathlib import Path

import pytest

from forebay_server.loadtest.html import html
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.target import Outcome
from tests.unit.loadtest.test_report import STAGES_US, document_of, noisy
from tests.unit.loadtest.virtual import FakeServer


@pytest.fixture
def open_report(browser, tmp_path):
    """Open the report of a document; return the browser."""

    def opening(document):
        page = tmp_path / "report.html"
        page.write_text(html(document), encoding="utf-8")
        browser.look(1000, 2600)
        browser.open(page.as_uri())
        return browser

    return opening


def overloaded():
    """A run with every outcome, and a model whose name is markup."""
    outcomes = [Outcome.OK, Outcome.OK, Outcome.SUPERSEDED, Outcome.OK, Outcome.EXPIRED, Outcome.OVERLOADED]
    latency = noisy(20)

    def answer(number):
        return latency(number)[0], [outcomes[number % len(outcomes)]]

    return document_of(Scenario(streams=3, fps=20, duration_s=15), FakeServer(answer, stages_us=STAGES_US))


def test_the_report_opens_without_errors_and_loads_nothing(open_report, tmp_path):
    document = overloaded()
    browser = open_report(document)
    assert browser.complaints() == []
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0
    assert browser.evaluate("document.scripts.length") == 0
    pictures = Path(os.environ.get("FOREBAY_SCREENSHOTS", tmp_path))
    for name, width, scheme in (("load", 1000, "light"), ("load-dark", 1000, "dark"), ("load-phone", 390, "light")):
        browser.look(width, 2600, scheme)
        browser.screenshot(pictures / f"{name}.png")
        assert (pictures / f"{name}.png").stat().st_size > 20_000


def test_the_report_has_its_pictures_and_says_what_the_run_was(open_report):
    document = overloaded()
    browser = open_report(document)
    titles = browser.evaluate("[...document.querySelectorAll('svg')].map((svg) => svg.ariaLabel)")
    assert titles == [
        "Latency by percentile",
        "Latency over time",
        "Offered and answered frames",
        "Where the time went",
    ]
    widths = browser.evaluate("[...document.querySelectorAll('svg polyline')].map((l) => l.getBBox().width)")
    assert len(widths) >= 7
    assert min(widths) > 100
    shown = browser.evaluate("document.body.innerText")
    assert document["verdict"] in shown
    assert f"superseded {document['superseded']} + expired {document['expired']}" in shown
    assert "<b>model</b>" in shown  # as text
    rows = browser.evaluate("[...document.querySelectorAll('table')].at(-1).rows.length")
    assert rows == 1 + 3  # a line for every camera


def test_the_report_fits_a_phone_and_follows_the_colour_scheme(open_report):
    browser = open_report(overloaded())
    grounds = set()
    for scheme in ("light", "dark"):
        browser.look(390, 800, scheme)
        browser.wait_for("innerWidth === 390")
        grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(grounds) == 2


def test_the_report_of_a_run_without_answers_opens_too(open_report):
    browser = open_report(document_of(server=FakeServer(lambda _: (0.01, []))))
    assert browser.complaints() == []
    assert "The run has no numbers for this." in browser.evaluate("document.body.innerText")
