"""The report on deaths of front-end processes, from results of cameras that are made up."""

from forebay_server.bench.deaths import lines_of, report_of

SECOND_NS = 1_000_000_000


def camera(*results, delivery="every", sent=None, resent=0):
    found = [(seq, status, int(at_s * SECOND_NS), opened) for seq, status, at_s, opened in results]
    return {"delivery": delivery, "sent": len(found) if sent is None else sent, "resent": resent, "results": found}


def test_frames_without_a_result_and_with_two_are_counted():
    report = report_of([camera((1, "ok", 1, 1), (1, "ok", 2, 1), (3, "failed", 3, 1), sent=3, resent=2)], [])
    assert (report.lost["every"], report.twice["every"], report.resent) == (1, 1, 2)
    assert report.statuses["every"] == {"ok": 2, "failed": 1}


def test_gaps_of_other_cameras_are_those_around_a_death():
    steady = camera(*((seq, "ok", 9 + seq * 0.1, 1) for seq in range(10)), (11, "ok", 10.4, 1), (12, "ok", 10.5, 1))
    report = report_of([steady], [10 * SECOND_NS])
    assert ([round(ms) for ms in report.gaps_before_ms], [round(ms) for ms in report.gaps_after_ms]) == ([100], [500])
    assert report.own_gaps_ms == []


def test_a_camera_that_had_to_reconnect_has_a_gap_of_its_own():
    moved = camera((1, "ok", 9.9, 1), (2, "unanswered", 10.1, 1), (3, "ok", 10.3, 2), delivery="latest")
    report = report_of([moved], [10 * SECOND_NS])
    assert [round(ms) for ms in report.own_gaps_ms] == [300]
    assert report.gaps_after_ms == []


def test_a_camera_that_had_not_come_back_has_none():
    assert report_of([camera((1, "ok", 5, 1), (2, "ok", 12, 2))], [10 * SECOND_NS]).own_gaps_ms == []


def test_the_report_has_a_line_for_each_number():
    report = report_of([camera((1, "ok", 9.9, 1), (2, "ok", 10.1, 1)), camera(delivery="latest")], [10 * SECOND_NS])
    lines = list(lines_of(report, [1500.0]))
    assert lines[0] == "front-end processes killed: 1"
    assert "EVERY: 2 frames sent, 0 without a result, 0 answered twice; 2 ok" in lines
    assert lines[-1] == "death to listening: median 1500 ms, p99 1500 ms, longest 1500 ms (1 samples)"
