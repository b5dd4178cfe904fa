"""Prometheus' own tool on the deployed rules and the exported metrics: rules, alerts, names, expressions."""

import json
import re
import shutil
import subprocess

import pytest

from tests.rpc.test_observe import get, send_frames
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated
from tests.support.repository import ROOT

PROMTOOL = shutil.which("promtool")
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "forebay.json"

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: apt-get install prometheus")

# alert -> series that raise it, and after how many minutes; each with values that do not, and those are tried too
CASES = {
    "ForebayDown": ([("up", "0+0x60", "1+0x60")], 5),
    "ForebayNotReady": ([("forebay_ready", "0+0x60", "1+0x60")], 5),
    "ForebayBudgetBurnsFast": ([('forebay_frames_total{outcome="expired"}', "0+600x90", "0+6x90")], 80),
    "ForebayBudgetBurns": ([('forebay_frames_total{outcome="expired"}', "0+60x120", "0+6x120")], 100),
    "ForebaySlow": ([('forebay_frame_latency_seconds_bucket{stage="total",le="0.1"}', "0+0x60", "0+60x60")], 30),
    "ForebayFramesFail": ([('forebay_frames_total{outcome="failed"}', "0+60x60", "0+0x60")], 20),
    "ForebayOverloaded": ([('forebay_frames_total{outcome="overloaded"}', "0+600x60", "0+6x60")], 20),
    "ForebayComputeSaturated": (
        [('forebay_stage_busy_seconds_total{stage="execute"}', "0+59.9x120", "0+30x120")],
        100,
    ),
    "ForebayCostDrift": ([("forebay_cost_drift_ratio", "2+0x60", "1.1+0x60")], 40),
    "ForebayDeviceMemoryFull": ([('forebay_device_memory_used_bytes{device="cuda:0"}', "99+0x60", "80+0x60")], 40),
    "ForebayCameraSilent": ([('forebay_stream_silent_seconds{stream="gate"}', "0+60x20", "20+0x20")], 10),
    "ForebayCameraGone": (
        [
            ('forebay_stream_gone_seconds{stream="gate",ending="lost"}', "0+60x15", "30+0x20"),
            ('forebay_stream_gone_seconds{stream="gate",ending="slow"}', "0+60x15", "_x20"),
        ],
        5,
    ),
    "ForebayCamerasGone": ([('forebay_streams_gone{ending="lost"}', "20+0x20", "3+0x20")], 5),
    "ForebayRestarts": ([("process_cpu_seconds_total", "9 1 9 1 9 1 9 1", "0+9x9")], 8),
}
BACKGROUND = {
    'forebay_frames_total{outcome="ok"}': "0+600x120",
    'forebay_frames_late_total{outcome=""}': "0+0x120",
    'forebay_frame_latency_seconds_bucket{stage="total",le="+Inf"}': "0+60x120",
    'forebay_frame_latency_seconds_bucket{stage="total",le="1"}': "0+60x120",
    'forebay_device_memory_total_bytes{device="cuda:0"}': "100+0x120",
}


def promtool(*arguments, **more):
    return subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False, **more)


def labelled(series):
    """The series as a scrape of one model would give it."""
    name, _, inside = series.rstrip("}").partition("{")
    return f'{name}{{job="forebay",instance="a",model="m",version="1"{"," if inside else ""}{inside}}}'


def rule_test(series, minutes, alert, is_raised):
    """One test in the words of `promtool test rules`, which is YAML, of which JSON is a part."""
    return {
        "interval": "1m",
        "input_series": [{"series": labelled(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": int(is_raised)}],
            }
        ],
    }


def test_the_rules_are_rules():
    checked = promtool("check", "rules", ALERTS)
    assert checked.returncode == 0, checked.stderr
    assert set(re.findall(r"- alert: (\w+)", ALERTS.read_text())) == set(CASES)


def test_every_alert_is_raised_by_what_it_is_for_and_by_nothing_less(tmp_path):
    tests = []
    for alert, (cases, minutes) in CASES.items():
        for name, bad, good in cases:
            tests.append(rule_test({**BACKGROUND, name: bad}, minutes, alert, is_raised=True))
            tests.append(rule_test({**BACKGROUND, name: good}, minutes, alert, is_raised=False))
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    ran = promtool("test", "rules", path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_expression_of_the_dashboard_is_one(tmp_path):
    texts = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    plain = [text.replace("$__rate_interval", "1m").replace("$model", ".*") for text in texts]
    rules = [{"record": f"panel_{index}", "expr": text} for index, text in enumerate(plain)]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(texts)} rules found" in checked.stdout


@on_loop
async def test_our_metrics_follow_prometheus_rules_of_names_and_units(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, admin_address="127.0.0.1:0") as running:
        stream, _ = await send_frames(running, stream_id='quo"te \n \N{PILE OF POO}')
        _, _, text = await get(running.server.admin_address, "/metrics")
        await stream.half_close()
        await stream.drain()
    ours = promtool("check", "metrics", input=text)
    complaints = [line for line in ours.stderr.splitlines() if not line.startswith("nv_inference_")]
    assert complaints == []  # the others have the names that Triton gave them
