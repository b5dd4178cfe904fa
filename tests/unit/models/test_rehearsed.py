"""The limits that a rehearsal sets for itself."""

import subprocess
import sys

PROGRAM = """
import resource

from forebay_server.service.models.rehearsed import lower_limit

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 2000))
lower_limit(resource.RLIMIT_FSIZE, 5000)
lower_limit(resource.RLIMIT_CORE, 0)
print(resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_limits_are_lowered_and_never_raised():
    """To raise one is an error, unless for root: every load failed under the operator's own lower limit."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, check=True)
    assert ran.stdout.decode().strip() == "(2000, 2000) (0, 0)"
