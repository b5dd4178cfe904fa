"""Run everything that needs a GPU and print one table: `python tests/gpu/run.py [--json PATH] [pytest arguments]`.

Needs Python 3.11 or newer, numpy, pytest, hypothesis and psutil. If another part is missing (torch, onnxruntime,
structlog, TensorRT, a GPU), the tests that need it are skipped with the reason. Ends with 0 if nothing failed. Takes 2
to 5 minutes.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUITES = ["tests/contract/test_device.py", "tests/contract/test_pictures.py", "tests/gpu"]
NEEDED = ("numpy", "pytest", "hypothesis", "psutil")


class Table:
    """A pytest plugin that collects results instead of printing them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One row per test: the result of its call, or the reason why it was not called."""
        if report.when == "call" or report.outcome != "passed":
            self.rows.append(
                {
                    "test": report.nodeid.removeprefix("tests/").replace(".py::test_", ": ").replace("_", " "),
                    "outcome": report.outcome,
                    "seconds": round(report.duration, 2),
                    "measured": "; ".join(str(value) for key, value in report.user_properties if key == "measured"),
                    "note": _reason(report),
                }
            )

    def pytest_collectreport(self, report: Any) -> None:
        """A file that could not be collected, or was skipped as a whole."""
        if report.outcome != "passed":
            self.rows.append(
                {
                    "test": report.nodeid.removeprefix("tests/"),
                    "outcome": report.outcome,
                    "seconds": 0.0,
                    "measured": "",
                    "note": _reason(report),
                }
            )


def _reason(report: Any) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    if report.outcome == "failed":
        lines = [line for line in str(report.longrepr).splitlines() if line.startswith("E ")]
        return " | ".join(line[1:].strip() for line in lines[:4])[:400]
    return ""


def _grouped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fold tests of one file with nothing to say, or the same reason for being skipped, into one row."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    shown = []
    for row in rows:
        if row["measured"] or row["outcome"] == "failed":
            shown.append(row)
        else:
            groups.setdefault((row["test"].split(":")[0], row["outcome"], row["note"]), []).append(row)
    for (file, outcome, note), members in groups.items():
        seconds = sum(row["seconds"] for row in members)
        name = members[0]["test"] if len(members) == 1 else f"{file}: {len(members)} tests"
        shown.append({"test": name, "outcome": outcome, "seconds": seconds, "measured": "", "note": note})
    return shown


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print(rows: list[dict[str, Any]]) -> None:
    marks = {"passed": "ok", "skipped": "skip", "failed": "FAIL"}
    for row in sorted(_grouped(rows), key=lambda row: str(row["test"])):
        text = "  ".join(part for part in (row["measured"], row["note"]) if part)
        _say(f"{marks[row['outcome']]:4} {row['seconds']:6.2f} s  {row['test']}{'  -  ' if text else ''}{text}")
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in marks}
    _say(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


def _describe_machine() -> None:
    from importlib import util
    from importlib.metadata import PackageNotFoundError, version

    parts = [f"python {sys.version.split()[0]}"]
    for package in ("cuda-bindings", "torch", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13", "structlog"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} -")
    _say(", ".join(parts))
    if util.find_spec("cuda") is not None:
        from forebay_server.engines.cuda.calls import list_gpus
        from forebay_server.engines.errors import BackendUnavailableError

        try:
            for gpu in list_gpus():
                _say(str(gpu))
        except BackendUnavailableError as error:
            _say(f"no GPU: {error}")


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="also write the rows as JSON")
    known, rest = parser.parse_known_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    missing = [name for name in NEEDED if not _is_importable(name)]
    if missing:
        _say(f"cannot run: {', '.join(missing)} not installed (pip install {' '.join(missing)})")
        return 2
    import pytest

    _describe_machine()
    table = Table()
    arguments = ["-o", "addopts=", "--import-mode=importlib", "-m", "gpu", "-W", "default"]
    arguments += ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:randomly"]
    arguments += ["-o", "faulthandler_timeout=900"]  # for one test; a GPU that hangs must not stall the run
    code = pytest.main([*SUITES, *arguments, *rest], plugins=[table])
    _print(table.rows)
    if known.json:
        Path(known.json).write_text(json.dumps(table.rows, indent=1) + "\n")
    return 0 if code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED} else 1


def _is_importable(name: str) -> bool:
    from importlib import util

    return util.find_spec(name) is not None


if __name__ == "__main__":
    sys.exit(main())
