"""Every row of the tables in docs/observability.md, "What the page says", by the numbers that lead to it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import Ending
from forebay_server.service.observe import camera_diagnosis, diagnosis
from forebay_server.service.observe.camera_diagnosis import CameraNumbers, diagnose_camera, diagnose_gone
from forebay_server.service.observe.diagnosis import ModelNumbers, diagnose_model
from forebay_server.service.observe.finding import Finding, Level, Rates, ago
from tests.support.repository import ROOT

ALL_WELL = Rates({Outcome.OK: 21})
HALF = Rates({Outcome.OK: 11, Outcome.SUPERSEDED: 10})
EXPIRING = Rates({Outcome.OK: 1, Outcome.EXPIRED: 20})
LATE = Rates({Outcome.OK: 20}, late_per_s=15)
QUICK = {"decode": (1.0, 2.0), "queue": (2.0, 4.0), "execute": (8.0, 9.0), "deliver": (0.1, 0.2)}


def slow(stage, p99_ms):
    return {**QUICK, stage: (p99_ms / 3, p99_ms)}


MODEL = {
    "no frames": (ModelNumbers(Rates({})), Level.QUIET, "no frames in the last 10 s"),
    "failing": (
        ModelNumbers(Rates({Outcome.OK: 18, Outcome.FAILED: 2, Outcome.CORRUPT: 1})),
        Level.BAD,
        "3 of 21 frames a second fail in the model: the server's log has its error",
    ),
    "full": (
        ModelNumbers(ALL_WELL, (0.1, 0.98, 0.0)),
        Level.WARN,
        "execute is busy 98 %: all 21 frames a second are in time, with no room for more",
    ),
    "in time": (ModelNumbers(ALL_WELL, (0.1, 0.5, 0.0)), Level.GOOD, "all 21 frames a second are in time"),
    "drift": (
        ModelNumbers(HALF, (0.0, 0.99, 0.0), drift=2.04),
        Level.BAD,
        "execute is busy 99 % and takes 2.0 times as long as calibrated: 11 of 21 frames a second are in time; "
        "look for another process on the machine, for heat and lower clocks",
    ),
    "execute": (
        ModelNumbers(HALF, (0.0, 0.99, 0.0), slow("decode", 90)),
        Level.BAD,
        "execute is busy 99 %: 11 of 21 frames a second are in time; lower the frame rate, use INT8, or add a server",
    ),
    "budget": (
        ModelNumbers(EXPIRING, least_ms=33.2, shortest_budget_ms=20),
        Level.BAD,
        "one frame alone takes 33 ms, and budgets begin at 20 ms: 1 of 21 frames a second are in time; "
        "give longer budgets, or use a quicker model",
    ),
    "invalid": (
        ModelNumbers(Rates({Outcome.OK: 18, Outcome.INVALID: 3})),
        Level.BAD,
        "3 of 21 frames a second are invalid: the results tell their clients why",
    ),
    "decode": (
        ModelNumbers(HALF, stages=slow("decode", 60), are_workers_busy=True),
        Level.BAD,
        "decoding takes 60 ms at p99 and every worker is busy: 11 of 21 frames a second are in time; "
        "send smaller pictures or RGB8 of the model's size, or raise worker_threads if cores are free",
    ),
    "permits": (
        ModelNumbers(Rates({Outcome.OK: 11, Outcome.OVERLOADED: 10}), stages=QUICK, permits=256),
        Level.BAD,
        "all 256 permits are taken: 10 of 21 frames a second are refused; take cameras away, or raise permits",
    ),
    "copies": (
        ModelNumbers(HALF, (0.2, 0.4, 0.95), QUICK),
        Level.BAD,
        "copying results back is busy 95 %: 11 of 21 frames a second are in time; "
        "ask for typed results instead of tensors, or send smaller inputs",
    ),
    "slots": (
        ModelNumbers(HALF, (0.0, 0.4, 0.0), QUICK, are_slots_full=True),
        Level.BAD,
        "every slot is taken while execute is busy only 40 %: 11 of 21 frames a second are in time; "
        "results are held up: ask for typed results instead of tensors, or give the process more cores",
    ),
    "wake-ups": (
        ModelNumbers(HALF, stages=QUICK, guard_ms=4.1),
        Level.BAD,
        "the machine wakes threads 4.1 ms late: 11 of 21 frames a second are in time; "
        "give the process cores of its own",
    ),
    "deliver": (
        ModelNumbers(LATE, stages=slow("deliver", 80)),
        Level.BAD,
        "results wait 80 ms at p99 to leave: 5 of 20 frames a second are in time; "
        "if it is one camera, its client reads slowly; if it is all, the process needs more cores",
    ),
    "spikes": (
        ModelNumbers(LATE, stages={**QUICK, "execute": (20.0, 124.0)}),
        Level.BAD,
        "execute takes 20 ms, and 124 ms at p99: 5 of 20 frames a second are in time; "
        "another process uses the machine now and then: give this one cores of its own",
    ),
    "slow": (
        ModelNumbers(LATE, stages=QUICK),
        Level.BAD,
        "execute takes 9.0 ms at p99: 5 of 20 frames a second are in time; "
        "use INT8 or a smaller model, or give longer budgets",
    ),
    "expired": (
        ModelNumbers(Rates({Outcome.EXPIRED: 20})),
        Level.BAD,
        "all 20 frames a second expire before they are executed; give longer budgets, or send fewer frames at once",
    ),
    "superseded": (
        ModelNumbers(HALF, (0.0, 0.4, 0.0), slow("queue", 12)),
        Level.WARN,
        "11 of 21 frames a second are in time, the others gave way to newer ones: cameras send in bursts",
    ),
    "queue": (
        ModelNumbers(LATE, (0.0, 0.4, 0.0), slow("queue", 120)),
        Level.BAD,
        "frames wait 120 ms at p99 for a batch while execute is busy only 40 %: 5 of 20 frames a second are in time; "
        "let cameras send at different times, or give longer budgets",
    ),
}

BUSY = Finding("execute", Level.BAD, "execute is busy 99 %")
FINE = Finding("in time", Level.GOOD, "all is in time")
CAMERA = {
    "silent": (
        CameraNumbers(Rates({}), silent_s=42.4),
        BUSY,
        "no frame for 42 s: look at the camera and its network",
    ),
    "no frames": (CameraNumbers(Rates({})), BUSY, "no frame in the last 10 s"),
    "failing": (
        CameraNumbers(Rates({Outcome.OK: 9, Outcome.INTERNAL: 1})),
        FINE,
        "1 of 10 frames a second fail in the model: the server's log has its error",
    ),
    "invalid": (
        CameraNumbers(Rates({Outcome.OK: 9, Outcome.INVALID: 1})),
        FINE,
        "1 of 10 frames a second are invalid: the results tell its client why",
    ),
    "reader": (
        CameraNumbers(ALL_WELL, slow("deliver", 400)),
        FINE,
        "results wait 400 ms at p99 for its client: it reads slowly, or its network is slow",
    ),
    "old": (
        CameraNumbers(ALL_WELL, age_ms=800, p50_ms=20.0),
        FINE,
        "results are 800 ms old, of which the server took 20 ms: it or its network is slow",
    ),
    "in time": (CameraNumbers(ALL_WELL, age_ms=80, p50_ms=20.0), BUSY, "all 21 frames a second are in time"),
    "budget": (
        CameraNumbers(EXPIRING, budget_ms=20),
        BUSY,
        "1 of 21 frames a second are in time: its budget is 20 ms, and one frame alone takes 33 ms",
    ),
    "decode": (
        CameraNumbers(LATE, slow("decode", 15), size=(3840, 2160)),
        BUSY,
        "decoding takes 15 ms at p99: send smaller pictures than 3840 x 2160",
    ),
    "model": (
        CameraNumbers(HALF, slow("queue", 90)),
        BUSY,
        "11 of 21 frames a second are in time: it waits for its model, see there",
    ),
    "bursts": (
        CameraNumbers(HALF, slow("queue", 90)),
        FINE,
        "11 of 21 frames a second are in time: queue takes 90 ms at p99; its frames come in bursts",
    ),
}


@pytest.mark.parametrize("cause", MODEL)
def test_a_model(cause):
    numbers, level, text = MODEL[cause]
    assert diagnose_model(numbers) == Finding(cause, level, text)


@pytest.mark.parametrize("cause", CAMERA)
def test_a_camera(cause):
    numbers, model, text = CAMERA[cause]
    found = diagnose_camera(numbers, model, least_ms=33.0)
    assert (found.cause, found.text) == (cause, text)
    assert (found.level in (Level.GOOD, Level.QUIET)) is (cause in ("in time", "no frames"))


@pytest.mark.parametrize(
    ("ending", "since_s", "level", "text"),
    [
        (Ending.ENDED, 30, Level.QUIET, "gone 30 s ago: its client ended the stream"),
        (Ending.LOST, 130, Level.BAD, "gone 2 min ago: its connection broke"),
        (Ending.SLOW, 130, Level.BAD, "gone 2 min ago: its client took no results"),
        (Ending.REFUSED, 5, Level.BAD, "gone 5 s ago: the server ended its stream with an error, which its client"),
    ],
)
def test_a_camera_that_went_away(ending, since_s, level, text):
    found = diagnose_gone(ending, since_s)
    assert (found.cause, found.level) == ("gone", level)
    assert found.text.startswith(text)


def test_every_cause_has_a_case_and_a_row_in_the_documentation():
    assert set(MODEL) == set(diagnosis.CAUSES)
    assert {*CAMERA, "gone"} == set(camera_diagnosis.CAUSES)
    page = (ROOT / "docs" / "observability.md").read_text()
    tables = page.split("### What the page says")[1].split("\n### ")[0].split("\n\nOf a camera")
    assert len(tables) == 2
    for table, causes in zip(tables, (diagnosis.CAUSES, camera_diagnosis.CAUSES), strict=True):
        assert re.findall(r"^\| \*(.+?)\* \|", table, re.MULTILINE) == list(causes)


def test_advice_is_for_the_device_that_the_model_runs_on():
    numbers = replace(MODEL["execute"][0], is_on_gpu=True)
    assert diagnose_model(numbers).text.endswith("use FP16 or INT8, or add an instance or a server")


def test_the_level_follows_the_share_in_time():
    shares = [Rates({Outcome.OK: ok, Outcome.EXPIRED: 1000 - ok}).level for ok in (1000, 990, 989, 900, 899, 0)]
    assert shares == [Level.GOOD, Level.GOOD, Level.WARN, Level.WARN, Level.BAD, Level.BAD]
    assert Rates({Outcome.CANCELLED: 5}).level is Level.QUIET


def test_a_camera_that_has_sent_nothing_says_so():
    found = diagnose_camera(CameraNumbers(Rates({}), silent_s=130, has_frames=False), FINE)
    assert found.text == "no frame since it opened 2 min ago: look at the camera and its network"


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(11, 21, "11 of 21"), (20.9, 21.1, "20.9 of 21.1"), (0.4, 9, "0.4 of 9")]
)
def test_two_numbers_that_differ_are_never_shown_as_equal(part, whole, text):
    assert Rates({Outcome.OK: part, Outcome.EXPIRED: whole - part}).say() == f"{text} frames a second"


def test_spans_of_time():
    assert [ago(seconds) for seconds in (1, 119, 120, 899)] == ["1 s", "119 s", "2 min", "15 min"]


rates = st.dictionaries(st.sampled_from(list(Outcome)), st.floats(0, 1e5)).flatmap(
    lambda per_s: st.floats(0, per_s.get(Outcome.OK, 0.0)).map(lambda late: Rates(per_s, late))
)
stages = st.dictionaries(
    st.sampled_from(["receive", "decode", "queue", "h2d", "execute", "d2h", "deliver"]),
    st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)),
)


@given(rates, stages, st.tuples(*3 * [st.floats(0, 1.5)]), st.floats(0, 100), st.booleans(), st.booleans())
def test_there_is_always_one_sentence(rates, stages, busy, number, first, second):
    numbers = ModelNumbers(rates, busy, stages, number, 10.0, number / 10, number, first, second, 256, first)
    model = diagnose_model(numbers)
    camera = diagnose_camera(CameraNumbers(rates, stages, number, 3 * number, budget_ms=10.0), model, number)
    for found, causes in ((model, diagnosis.CAUSES), (camera, camera_diagnosis.CAUSES)):
        assert found.cause in causes
        assert found.text
        assert "\n" not in found.text
