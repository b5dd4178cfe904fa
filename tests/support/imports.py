"""Which modules a command imports: the command line in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass

from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

PROGRAM = (
    "import sys; before = set(sys.modules); from forebay_server.service.cli import main\n"
    "try: main()\n"
    "finally: sys.__stderr__.write('\\n' + ' '.join(set(sys.modules) - before))\n"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended, and the modules that it has imported."""

    code: int
    output: str
    errors: str
    imported: frozenset[str]


def run_command(*words, environment=None):
    """Run `forebay WORDS...` and return how it ended."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "FOREBAY"))}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        cwd=ROOT,
        env={**kept, **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
    )
    errors, _, imported = ended.stderr.rpartition("\n")
    assert "forebay_server.service.cli" in imported.split(), ended.stderr
    return Ended(ended.returncode, ended.stdout, errors, frozenset(imported.split()))
