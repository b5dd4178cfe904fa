"""The load generator and whole processes: minutes rather than seconds, so not part of `make test`."""

import json
import subprocess
import sys

import pytest

from forebay_server.bench.server_process import running_server, simulated_config
from forebay_server.loadtest.output import read

pytestmark = pytest.mark.heavy
GUARD_S = 120


def load(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "forebay_server.loadtest", *arguments],
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )


@pytest.fixture
def start(tmp_path):
    """Start a module of the load test as a process; it ends with the test."""
    processes = []

    def starting(module, *arguments):
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process.stdout.readline().split()[-1]

    yield starting
    for process in processes:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def null_server(start):
    """Start a null server with faults; return its address."""
    return lambda *faults: f"127.0.0.1:{start('forebay_server.loadtest.null_server', *faults)}"


SMALL = ("--shape", "2000", "--datatype", "UINT8", "--no-calibrate")


def test_a_healthy_run_is_ok_and_all_its_reports_are_written(null_server, tmp_path):
    page, run = tmp_path / "report.html", tmp_path / "run.json"
    options = ("--cameras", "4", "--fps", "20", "--duration", "15", "--html", str(page), "--json", str(run))
    more = ("--markdown", str(tmp_path / "run.md"), "--hgrm", str(tmp_path / "run.hgrm"))
    finished = load("--address", null_server("--delay-ms", "5"), *SMALL, *options, *more)
    document = read(run)
    assert finished.returncode == document["exit_code"], finished.stdout
    if document["schedule_lag_p99_ms"] < 5:  # else this host is too busy for the generator to run in time
        assert document["verdict"] == "OK", finished.stdout
    assert document["p50_ms"] >= 5
    assert document["verdict"] in page.read_text()
    assert document["verdict"] in (tmp_path / "run.md").read_text()
    assert "#[Mean" in (tmp_path / "run.hgrm").read_text()


def test_the_generator_measures_its_own_ceiling_after_the_run(null_server, tmp_path):
    run = tmp_path / "run.json"
    load("--address", null_server(), "--fps", "10", "--duration", "1", "--shape", "1000", "--json", str(run))
    assert read(run)["generator"]["null_server_ceiling_per_s"] > 100


def test_an_injected_stall_and_a_dropped_frame_show_in_the_report(null_server, tmp_path):
    run = tmp_path / "run.json"
    faults = ("--stall-at-frame", "200", "--stall-ms", "50", "--drop-frame", "250")
    options = ("--cameras", "2", "--fps", "30", "--duration", "5", "--json", str(run), "--assert", "lost=0")
    finished = load("--address", null_server(*faults), *SMALL, "--policy", "block", *options)
    document = read(run)
    assert document["lost"] == 1
    assert document["max_ms"] >= 50
    assert finished.returncode in {3, 4}  # 4 only if this host kept the generator from running


def test_a_server_that_dies_in_the_middle_is_exit_code_5_and_the_part_before_is_kept(null_server, tmp_path):
    run = tmp_path / "run.json"
    options = ("--cameras", "2", "--fps", "20", "--duration", "60", "--json", str(run))
    finished = load("--address", null_server("--exit-at-frame", "80"), *SMALL, *options)
    document = read(run)
    assert finished.returncode == 5
    assert document["verdict"] == "NO_SERVER"
    assert "could be reopened" in document["reasons"][0]
    assert document["answered"] >= 70
    assert document["duration_s"] < 20


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (("--never-answer",), 0, "was answered"),
        (("--duplicate-frame", "9"), 4, "already answered"),
        (("--garbage-frame", "9"), 4, "could not be understood"),
        (("--garbage-open",), 5, "does not speak forebay.v1"),
        (("--never-open",), 5, "did not open a stream"),
    ],
)
def test_a_bad_server_is_named_with_its_exit_code(null_server, fault, code, words):
    options = ("--fps", "20", "--duration", "2", "--drain", "1")
    finished = load("--address", null_server(*fault), *SMALL, *options)
    assert finished.returncode == code
    assert words in finished.stdout + finished.stderr


def test_the_capacity_of_a_server_of_known_speed_is_found(tmp_path):
    """10 ms a frame, one frame a batch: less than 100 frames a second. 60 and 120 are tried."""
    found = tmp_path / "found.json"
    options = ("--rate", "60", "--lowest", "60", "--slo-p99", "200ms", "--duration", "11", "--repeats", "1")
    config = simulated_config(alpha_ms=10, beta_ms=0, input_bytes=2000, max_batch_size=1)
    with running_server({"slow": config}) as server:
        target = ("--address", server.address, "--model", "slow")
        finished = load("search", *target, *SMALL, *options, "--resolution", "0.5", "--json", str(found))
    document = json.loads(found.read_text())
    if "generator" in document["remark"]:
        pytest.skip("this host is too busy for the generator to run in time")
    assert finished.returncode == 0, finished.stderr
    assert (document["highest_passing"], document["lowest_failing"]) == (60, 120)


def test_two_agents_share_the_load_and_their_results_are_put_together(null_server, start, tmp_path):
    agents = [f"127.0.0.1:{start('loadtest', 'agent', '--listen', '127.0.0.1:0')}" for _ in range(2)]
    run = tmp_path / "run.json"
    options = ("--cameras", "4", "--fps", "20", "--duration", "4", "--policy", "block", "--json", str(run))
    named = [option for address in agents for option in ("--agent", address)]
    finished = load("--address", null_server(), *SMALL, *options, *named)
    document = read(run)
    assert finished.returncode == document["exit_code"]
    assert document["answered"] == document["offered"] == 4 * 20 * 4
    assert document["generator"]["hosts"] == 2
    assert len(document["generator"]["cpu_shares"]) == 2


def test_an_agent_reads_no_file_that_a_coordinator_names(null_server, tmp_path):
    finished = load("--address", null_server(), "--frames", str(tmp_path), "--agent", "127.0.0.1:1")
    assert finished.returncode == 2
    assert "agents read no files" in finished.stderr
