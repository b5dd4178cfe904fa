"""`forebay demo` with its own server, and its output to a person."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys

import psutil
import pytest
from rich.console import Console

from forebay import Box, Detection, Statistics
from forebay_server.service.cli import SILENCE, exit_codes
from forebay_server.service.cli.demo import summarise
from forebay_server.service.cli.live_table import camera_table
from forebay_server.service.cli.player import CameraLog, percentile
from forebay_server.service.cli.server_process import ServerStartError, running_server
from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

PERSON = Detection("person", 0, 0.75, Box(0, 0, 1, 1), Box(0, 0, 1, 1))


def command(*arguments):
    return [sys.executable, "-P", "-m", "forebay_server.service", "demo", *map(str, arguments)]


@pytest.mark.slow
def test_demo_starts_a_server_and_ends_it(tmp_path):
    for name in ("models", "service"):  # a user's own folders, which are no part of Forebay
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported from the working directory')")
    flags = ["--json", "--cameras", 1, "--fps", 5, "--seconds", 1]
    done = subprocess.run(
        command(*flags), check=False, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_GUARD_S
    )
    assert done.returncode == exit_codes.OK, done.stderr
    report = json.loads(done.stdout)
    assert sum(report["status_counts"].values()) == 5  # a busy machine sends some too late to be worth it
    assert report["frames_sent"] >= report["results"] > 0
    assert (report["lost"], report["out_of_order"]) == (0, 0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"demo.png", "demo.mp4"}


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_played(tmp_path):
    (tmp_path / "file").write_text("")
    flags = ["--out", tmp_path / "file" / "out"]
    done = subprocess.run(command(*flags), check=False, cwd=ROOT, capture_output=True, text=True, timeout=HANG_GUARD_S)
    assert done.returncode == exit_codes.CANNOT_WRITE
    assert done.stderr.count("\n") == 1
    assert "--out" in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_server(tmp_path):
    flags = ["--json", "--cameras", 1, "--seconds", 60, "--out", tmp_path]
    with subprocess.Popen(command(*flags), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        server = wait_for_child(demo.pid)
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=HANG_GUARD_S)
    assert demo.returncode == exit_codes.INTERRUPTED
    assert "Traceback" not in errors
    assert not server.is_running()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_server_does_not_outlive_the_demo_that_started_it(tmp_path, number):
    flags = ["--json", "--cameras", 1, "--seconds", 60, "--out", tmp_path]
    with subprocess.Popen(command(*flags), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        server = os.pidfd_open(wait_for_child(demo.pid).pid)
        try:
            demo.send_signal(number)
            assert demo.wait(HANG_GUARD_S) == -number
            assert select.select([server], [], [], HANG_GUARD_S)[0]
        finally:
            os.close(server)


def wait_for_child(pid):
    parent = psutil.Process(pid)

    async def child():
        async with asyncio.timeout(HANG_GUARD_S):
            while not (children := parent.children()):
                await asyncio.sleep(0.01)
            return children[0]

    return asyncio.run(child())


@pytest.mark.slow
def test_server_that_does_not_start_says_why(tmp_path):
    async def start():
        async with running_server(["--model-repository", str(tmp_path / "nowhere")]):
            pass

    with pytest.raises(ServerStartError, match=r"ended before it was ready\nforebay: .*nowhere"):
        asyncio.run(start())


@pytest.mark.slow
def test_the_server_of_a_command_is_not_as_silent_as_the_command(monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", SILENCE)

    async def environment():
        before = psutil.Process().children()
        async with running_server():
            (server,) = [child for child in psutil.Process().children() if child not in before]
            return server.environ()

    assert "GRPC_VERBOSITY" not in asyncio.run(environment())


def a_log():
    log = CameraLog("camera-1", offered=3, last_seq=3)
    log.by_status.update({"ok": 2, "superseded": 1})
    log.latencies_ms.extend([40.0, 60.0])
    log.ages_ms.extend([39.0, 59.0])
    log.arrivals_ns.extend([0, 200_000_000])
    log.findings[7] = [PERSON]
    log.statistics = Statistics(sent=3)
    return log


def test_live_table_shows_each_camera():
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(camera_table("two cameras", [a_log(), CameraLog("camera-2")]))
    first, second = (line for line in capture.get().splitlines() if "camera-" in line)
    assert first.split() == ["camera-1", "5.0", "3", "2", "1", "0", "60", "60", "59", "1"]
    assert "superseded" in capture.get()
    assert second.count("-") >= 4


def test_summary_has_no_figures_without_results():
    report = summarise([CameraLog("camera-1")], 5.0)
    assert (report["results"], report["p50_ms"], report["age_p99_ms"]) == (0, None, None)


def test_frames_without_an_answer_are_lost_and_those_never_sent_are_not():
    log = a_log()
    log.by_status.update({"unanswered": 1, "not_sent": 5})
    log.statistics = Statistics(sent=4)
    report = summarise([log], 5.0)
    assert (report["results"], report["lost"]) == (3, 1)
    assert report["status_counts"]["not_sent"] == 5


def test_percentile_is_a_value_that_was_measured():
    assert percentile([1.0, 2.0, 10.0], 0.99) == 10.0
    assert percentile([], 0.5) is None
