"""5,000 malformed requests, each alone and within a stream, against identity models. 21 s of CPU."""

import os

from tests.support.malformed import make_repository, run_malformed

EXAMPLES = int(os.environ.get("FOREBAY_MALFORMED", "5000"))


def test_thousands_of_malformed_requests_find_no_crash_no_leak_and_no_hang(tmp_path):
    run_malformed(make_repository(tmp_path), EXAMPLES)
