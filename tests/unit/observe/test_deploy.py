"""The files deployed beside the service name existing metrics, and all metrics are documented."""

import json
import re

import pytest

from tests.support.repository import ROOT

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "forebay.json"
OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


def metric_names():
    source = "".join(path.read_text() for path in (ROOT / "service" / "observe").glob("*exposition.py"))
    return set(re.findall(r'"((?:forebay|process)_\w+)"', source))


def used_names(text):
    names = metric_names()
    used = set(re.findall(r"\b((?:forebay|process)_[a-z0-9_]+)", text))
    return {name if name in names else OF_HISTOGRAMS.sub("", name) for name in used}


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return texts + re.findall(r"expr: (?:>-\n)?((?:[^\n]+)(?:\n {10,}[^\n]+)*)", ALERTS.read_text())


def test_every_metric_is_described_in_the_documentation():
    page = (ROOT / "docs" / "observability.md").read_text()
    names = metric_names()
    assert len(names) > 30
    assert sorted(name for name in names if f"`{name}`" not in page) == []


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_dashboard_and_alerts_use_metrics_that_exist(path):
    used = used_names(path.read_text())
    assert used
    assert sorted(used - metric_names()) == []


def test_expressions_are_balanced():
    assert len(expressions()) > 30
    for text in expressions():
        bare = re.sub(r'"[^"]*"', "", text)
        for opening, closing in ("()", "{}", "[]"):
            assert bare.count(opening) == bare.count(closing), text


def test_dashboard_panels_have_what_grafana_needs():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$(?!__)\{?(\w+)", DASHBOARD.read_text()))
    assert used <= variables


def test_every_alert_has_a_severity_a_summary_and_a_description():
    blocks = ALERTS.read_text().split("- alert: ")[1:]
    assert len(blocks) >= 8
    for block in blocks:
        name = block.splitlines()[0]
        assert re.search(r"labels: \{severity: (page|ticket)\}", block), name
        assert "summary:" in block, name
        assert "description:" in block, name
