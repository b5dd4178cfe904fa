"""Frames lost, sent again and answered late, out of the cameras' own lists."""

from forebay_server.bench.scale_account import account

MS = 1_000_000


def camera(results, sent=None, resent=0):
    """A camera with results (seq, status, time in ms, number of the call)."""
    found = [(seq, status, at_ms * MS, opened) for seq, status, at_ms, opened in results]
    count = sent if sent is not None else len({seq for seq, *_ in results})
    opened = max(opened for *_, opened in results)
    return {"sent_ns": [0] * count, "results": found, "resent": resent, "opened": opened}


def steady(first, last, start_ms, opened=1, step_ms=200):
    return [(seq, "ok", start_ms + (seq - first) * step_ms, opened) for seq in range(first, last + 1)]


def test_a_frame_without_the_result_ok_is_lost_and_two_results_are_twice():
    results = [(1, "ok", 0, 1), (2, "unanswered", 200, 1), (4, "ok", 400, 1), (4, "ok", 410, 1)]
    found = account("x", [camera(results, sent=4)], [])
    assert (found.sent, found.lost, found.twice) == (4, 2, 1)


def test_the_gap_is_the_longest_wait_around_a_fault_less_the_usual():
    results = [*steady(1, 10, 0), *steady(11, 20, 2150, opened=2)]  # the 10th came at 1800, the 11th 350 later
    found = account("x", [camera(results), camera(steady(1, 20, 0))], [1900 * MS])
    assert (found.gap_ms, found.quiet_gap_ms) == (150.0, 0.0)
    assert (found.moved, found.most_reopened) == (1, 1)


def test_a_gap_before_the_fault_is_the_machine_s():
    results = [*steady(1, 10, 0), *steady(11, 30, 2100)]
    found = account("x", [camera(results)], [2500 * MS])
    assert (found.gap_ms, found.quiet_gap_ms) == (0.0, 100.0)


def test_a_camera_that_reopened_twice_after_a_fault_is_seen():
    results = [*steady(1, 5, 0), *steady(6, 6, 1000, opened=2), *steady(7, 20, 1200, opened=3)]
    assert account("x", [camera(results, resent=2)], [900 * MS]).most_reopened == 2
