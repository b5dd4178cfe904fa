"""`forebay doctor` names the fault of a broken set-up and says how to mend it."""

import json
import resource
import socket

import pytest
from typer.testing import CliRunner

from forebay_server.engines.pictures import PictureSupport
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.checks import machine_findings
from forebay_server.service.cli.checks_setup import picture_finding
from forebay_server.service.cli.commands import app
from forebay_server.service.settings import ServeSettings
from tests.support.certificates import Authority, needs_openssl
from tests.support.real_server import simulated


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """A set-up that works; a test breaks one thing. Gives the environment's setter."""
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"FOREBAY_{name.upper()}", raising=False)

    def put(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"FOREBAY_{name.upper()}", str(value))

    put(
        address="127.0.0.1:0",
        cache_folder=tmp_path / "cache",
        model_repository=json.dumps([str(simulated(tmp_path / "models"))]),
    )
    return put


def run():
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (exit_codes.OK if report["is_healthy"] else exit_codes.FAILED), result.output
    return report["findings"]


def faults():
    """Check and detail of every fault, each of which must have a remedy."""
    found = [finding for finding in run() if finding["level"] == "fault"]
    assert all(finding["remedy"] for finding in found)
    return [(finding["check"], finding["detail"]) for finding in found]


def only_fault():
    found = faults()
    assert len(found) == 1, found
    return found[0]


def test_a_set_up_that_works_has_no_fault(setup):
    assert faults() == []


def test_a_port_in_use_is_named(setup):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        setup(address=f"127.0.0.1:{port}")
        check, detail = only_fault()
    assert check == "port"
    assert str(port) in detail


@pytest.mark.parametrize("is_theirs_shared", [False, True])
def test_a_port_in_use_is_no_fault_if_both_share_it(setup, is_theirs_shared):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_theirs_shared))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        setup(address=f"127.0.0.1:{taken.getsockname()[1]}", share_port=True)
        found = faults()
    assert [check for check, _ in found] == ([] if is_theirs_shared else ["port"])


def test_a_broken_model_is_named(setup, tmp_path):
    folder = tmp_path / "models" / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"no model")
    check, detail = only_fault()
    assert check == "model"
    assert detail.startswith("broken")


def test_a_setting_out_of_range_is_named(setup):
    setup(permits=0)
    check, detail = only_fault()
    assert check == "settings"
    assert "FOREBAY_PERMITS" in detail


@needs_openssl
def test_a_certificate_that_has_expired_is_named(setup, tmp_path):
    (tmp_path / "tls").mkdir()
    certificate, key = Authority(tmp_path / "tls").issue("server", days=-1)
    setup(tls_cert=certificate, tls_key=key)
    check, detail = only_fault()
    assert check == "tls"
    assert "expired" in detail


def test_a_container_without_memory_is_named(tmp_path):
    cgroup = tmp_path / "sys" / "fs" / "cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.max").write_text(str(64 << 20))
    (cgroup / "cpu.max").write_text("50000 100000\n")
    found = {finding.check: finding for finding in machine_findings(tmp_path, 100)}
    assert found["memory"].level == "fault"
    assert found["memory"].detail == "64 MB, the limit of the container"
    assert found["cores"].level == "warning"


def test_too_few_open_files_are_named():
    soft_limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft_limit, 250), hard))
    try:
        found = {finding.check: finding for finding in machine_findings(__import__("pathlib").Path("/"), 1024)}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard))
    assert found["open files"].level == "fault"
    assert "ulimit" in found["open files"].remedy


def test_a_slow_clock_and_a_saving_governor_are_warnings(tmp_path):
    for path, text in {
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    levels = {finding.check: finding.level for finding in machine_findings(tmp_path, 100)}
    assert levels["clock"] == levels["cpu governor"] == "warning"


def test_a_variable_with_a_typing_error_is_a_warning(setup, monkeypatch):
    monkeypatch.setenv("FOREBAY_PERMIT", "5")
    details = [finding["detail"] for finding in run() if finding["check"] == "settings"]
    assert details == ["FOREBAY_PERMIT is no setting: did you mean 'FOREBAY_PERMITS'?"]


def test_unix_sockets_that_cannot_be_used_are_named(setup, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    setup(uds="file")
    assert only_fault()[0] == "unix socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("live")
        listener.listen()
        setup(uds="live")
        assert "a server answers" in only_fault()[1]
    setup(uds="live")
    assert faults() == []


def test_without_json_faults_and_what_to_do_are_lines(setup):
    setup(permits=0)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == exit_codes.FAILED
    assert "FAULT  settings: FOREBAY_PERMITS" in result.stdout


def test_traces_without_their_library_are_named(setup, monkeypatch):
    setup(trace_every_frames=100)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    assert faults() == []
    assert [each["detail"] for each in run() if each["check"] == "traces"] == ["to http://collector:4317"]
    monkeypatch.setattr("forebay_server.service.cli.checks_setup._is_there", lambda module: False)
    assert only_fault()[0] == "traces"


def test_an_admin_port_that_other_machines_reach_is_a_warning(setup):
    setup(admin_address="0.0.0.0:0", insecure=True)
    found = [finding for finding in run() if finding["check"] == "admin"]
    assert [finding["level"] for finding in found] == ["warning"]
    assert "0.0.0.0:0" in found[0]["detail"]


@pytest.mark.parametrize(
    ("choice", "support", "level", "words"),
    [
        ("auto", PictureSupport(planes=True, files=True), "ok", "decoded by the GPU"),
        ("gpu", PictureSupport(planes=True, files=True), "ok", "decoded by the GPU"),
        ("cpu", PictureSupport(planes=True, files=True), "ok", "decoded by the CPU, as image_decode says"),
        ("auto", PictureSupport(planes=True, files=False, reason="no JPEG engine"), "note", "no JPEG engine"),
        ("gpu", PictureSupport(planes=False, files=False, reason="no NVRTC"), "fault", "no NVRTC"),
    ],
)
def test_the_decoder_of_jpeg_frames_is_named(choice, support, level, words):
    finding = picture_finding(choice, support)
    assert finding.level == level
    assert words in finding.detail
