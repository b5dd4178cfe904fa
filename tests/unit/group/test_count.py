"""How many front-end processes: by the setting, the cores and the accelerator."""

import os
import socket

import pytest

from forebay_server.service.cores import usable_cores
from forebay_server.service.group.count import CountError, engine_count, front_end_count
from forebay_server.service.settings import MAX_ENGINES, MAX_FRONT_ENDS, SettingsError, load_settings, unknown_variables


@pytest.mark.parametrize(("cores", "count"), [(1, 0), (4, 0), (5, 2), (8, 2), (9, 3), (16, 5), (24, 8), (128, 8)])
def test_auto_is_a_third_of_the_cores_of_a_machine_with_an_accelerator(cores, count, tmp_path):
    assert front_end_count("auto", cores, [str(tmp_path)]) == count
    assert front_end_count("auto", cores, [str(tmp_path / "none")]) == 0


def test_more_than_the_cores_is_refused_with_a_remedy():
    assert front_end_count(3, 3) == 3
    with pytest.raises(CountError, match=r"front_ends is 4 and this process may use 3 cores: give at most 3, or 0"):
        front_end_count(4, 3)
    assert front_end_count(0, 1) == 0


def test_a_system_that_shares_no_port_is_told(monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(CountError, match="SO_REUSEPORT"):
        front_end_count(2, 8)
    assert front_end_count("auto", 8, ["/"]) == 0


@pytest.mark.parametrize("wrong", ["-1", "many", "1.5", str(MAX_FRONT_ENDS + 1), ""])
def test_another_value_is_one_line(wrong):
    with pytest.raises(SettingsError) as caught:
        load_settings({"front_ends": wrong}, None, {})
    assert str(caught.value) == f"--front-ends is {wrong!r}: give auto, or a number from 0 to {MAX_FRONT_ENDS}"


@pytest.mark.parametrize(("given", "found"), [("auto", "auto"), ("3", 3), (0, 0)])
def test_the_setting_is_a_number_or_auto(given, found, monkeypatch):
    assert load_settings({"front_ends": given}, None, {}).values.front_ends == found
    monkeypatch.setenv("FOREBAY_FRONT_ENDS", str(given))
    assert load_settings({}, None, os.environ).values.front_ends == found


def test_the_setting_of_earlier_versions_names_its_successor():
    assert "FOREBAY_FRONT_ENDS" in unknown_variables({"FOREBAY_PROCESSES": "4"})[0]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"cpu.max": "x\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "0\n"}, 4),
    ],
)
def test_cores_are_counted_by_affinity_and_quota(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_one_engine_process_for_each_gpu_that_cuda_shows():
    gpus = [f"/dev/nvidia{number}" for number in range(4)]
    assert engine_count("auto", 2, gpus, "") == 4
    assert engine_count("auto", 2, gpus, "0,2") == 2
    assert engine_count("auto", 2, [], "") == 1
    assert engine_count("auto", 0, gpus, "") == 1
    assert engine_count("auto", 2, [f"/dev/nvidia{number}" for number in range(20)], "") == MAX_ENGINES


def test_several_engine_processes_need_front_end_processes():
    assert engine_count(3, 1, []) == 3
    assert engine_count(1, 0, []) == 1
    with pytest.raises(CountError, match="engines is 2, and there are no front-end processes"):
        engine_count(2, 0, [])


@pytest.mark.parametrize("value", ["0", "17", "many", "-1", "1.5"])
def test_a_wrong_number_of_engine_processes_says_what_is_right(value):
    with pytest.raises(SettingsError, match=r"--engines is .*: give auto, or a number from 1 to 16"):
        load_settings({"engines": value}, None, {})
