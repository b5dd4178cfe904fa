"""The index of the test rigs names every one of them."""

import re

from tests.support.repository import ROOT

SUPPORT = ROOT / "tests" / "support"


def test_every_module_of_the_support_stands_in_its_index():
    modules = {path.stem for path in SUPPORT.glob("*.py")} | {
        path.parent.name for path in SUPPORT.glob("*/__init__.py")
    }
    rows = [line for line in (SUPPORT / "README.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == modules - {"__init__"}
