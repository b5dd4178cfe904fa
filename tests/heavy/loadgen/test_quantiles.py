import re
import time

import numpy as np
import pytest

from forebay_server.loadtest.quantiles import early_stopping_estimate, quantile

loadgen = pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel for this platform")

SAMPLES = 3000


def run_loadgen(folder, share):
    """Let LoadGen measure 3,000 short answers of random length; return its samples in ns and its summary."""
    draw = np.random.default_rng(1)

    def answer(samples):
        for sample in samples:
            end_s = time.perf_counter() + draw.exponential(0.0003)
            while time.perf_counter() < end_s:
                pass
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    sut = loadgen.ConstructSUT(answer, lambda: None)
    library = loadgen.ConstructQSL(8, 8, lambda _: None, lambda _: None)
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = SAMPLES
    settings.min_duration_ms = 0
    settings.single_stream_expected_latency_ns = 300_000
    settings.single_stream_target_latency_percentile = share
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.enable_trace = True
    try:
        loadgen.StartTestWithLogSettings(sut, library, settings, logs)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
    # LoadGen's threads write over each other's lines here and there, so its trace is not always JSON.
    trace = (folder / "mlperf_log_trace.json").read_text()
    samples = np.array([float(ns) for ns in re.findall(r'"complete_ns":(\d+)', trace)])
    assert len(samples) == SAMPLES
    return samples, (folder / "mlperf_log_summary.txt").read_text()


def logged(summary, name):
    return float(next(line for line in summary.splitlines() if name in line).rpartition(":")[2])


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_the_quantile_and_its_early_stopping_estimate_are_loadgens(tmp_path, share):
    samples, summary = run_loadgen(tmp_path, share)
    ours = early_stopping_estimate(samples, share)
    assert ours == logged(summary, f"Early stopping {share * 100:.1f}th percentile estimate")
    # LoadGen takes the sample after the smallest one that the share does not exceed.
    theirs = logged(summary, f"{share * 100:.2f} percentile latency")
    assert quantile(samples, share) <= theirs == np.sort(samples)[int(share * SAMPLES)]
