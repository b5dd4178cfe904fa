"""Requests that are wrong in every way: an answer that is right, or one clear error. tests/heavy has 10,000 of them."""

from tests.support.malformed import make_repository, run_malformed


def test_requests_that_are_wrong_somewhere_are_answered_or_refused_with_one_clear_status(tmp_path):
    run_malformed(make_repository(tmp_path))
