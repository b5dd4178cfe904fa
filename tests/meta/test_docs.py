"""Links in the documentation resolve, and its lists are complete."""

import dataclasses
import re
from pathlib import Path

import pytest

from forebay_server.service.batching.settings import BatchingSettings, QueuePolicy
from tests.support.repository import ROOT, tracked_files

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+)(?: \"[^\"]*\")?\)")
PICTURE = re.compile(r"<(?:img src|source [^>]*srcset)=\"(?P<target>[^\"]+)\"")
TRITON_NAMES = {
    "preferred_batch_sizes": "preferred_batch_size",
    "max_queue_delay_us": "max_queue_delay_microseconds",
    "priority_queue_policies": "priority_queue_policy",
    "default_timeout_us": "default_timeout_microseconds",
}
"""Of the knobs whose names here differ."""
TABLE = re.compile(r"<!-- table .*?<!-- end -->", flags=re.DOTALL)
"""Of measurements, which name the modules of their commit."""
CODE_PATH = re.compile(
    r"(?<![\w/.-])(?:service|engines|bench|loadtest|tests|tools|docs|protos|examples|deploy)/[\w./-]+?\.(?:py|md|proto|json)\b"
)
REPLACED = "Status: replaced"
FENCE = re.compile(r"^(```|~~~).*?^\1", flags=re.MULTILINE | re.DOTALL)


def pages():
    return [path for path in tracked_files() if path.suffix == ".md"]


def links(path: Path):
    text = FENCE.sub("", path.read_text())
    text = re.sub(r"`[^`\n]*`", "", text)
    return [match["target"] for pattern in (LINK, PICTURE) for match in pattern.finditer(text)]


def anchors(path: Path):
    """Return the anchors that a reader's viewer makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problem(page: Path, target: str) -> str | None:
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists():
        return "no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return "no such heading"
    return None


def test_every_link_resolves():
    broken = [
        f"{page.relative_to(ROOT)}: {target}: {reason}"
        for page in pages()
        for target in links(page)
        if (reason := problem(page, target))
    ]
    assert broken == []


@pytest.mark.parametrize("target", ["missing.md", "#no-such-heading", "../nowhere/"])
def test_broken_link_is_noticed(target, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A heading\n\nSee [that]({target}) and [this](#a-heading).\n")
    assert [link for link in links(page) if problem(page, link)] == [target]
    page.write_text(f'# A heading\n\n<picture><source media="print" srcset="{target}"><img src="page.md"></picture>\n')
    assert [link for link in links(page) if problem(page, link)] == [target]


def test_every_picture_is_shown_on_a_page():
    shown = {(page.parent / target).resolve() for page in pages() for target in links(page) if ":" not in target}
    images = [path for path in tracked_files() if path.parent == ROOT / "docs" / "images"]
    assert [path.name for path in images if path.resolve() not in shown] == []


def test_the_page_on_batching_tells_every_knob():
    fields = {field.name for knobs in (BatchingSettings, QueuePolicy) for field in dataclasses.fields(knobs)}
    page = (ROOT / "docs" / "batching.md").read_text()
    assert [name for name in sorted(fields) if f"`{TRITON_NAMES.get(name, name)}`" not in page] == []


def test_every_decision_has_a_number_of_its_own():
    numbers = [path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def missing_paths(text: str, names: set[str]) -> list[str]:
    """The paths of files of the repository that a text names and that do not exist."""
    found = CODE_PATH.findall(TABLE.sub("", text))
    return sorted({path for path in found if path not in names and "NAME" not in path})


def test_every_file_that_a_page_or_module_names_exists():
    names = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    broken = [
        f"{path.relative_to(ROOT)}: {missing}"
        for path in tracked_files()
        if path.suffix in {".md", ".py"} and path.name not in {"test_docs.py", "test_packaging.py"}
        if REPLACED not in (text := path.read_text())
        for missing in missing_paths(text, names)
    ]
    assert broken == []


def test_a_file_that_has_moved_is_noticed():
    measured = "<!-- table x -->\nservice/table.py\n<!-- end -->"
    text = f"in `service/old.py` and service/new.py\n{measured}\nengines/engine_NAME.py"
    assert missing_paths(text, {"service/new.py"}) == ["service/old.py"]
