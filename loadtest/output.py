"""Writes a report to the paths that the user names: JSON, HTML, Markdown, .hgrm; `-` is standard output."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from forebay.near_files import near_file
from forebay_server.loadtest import histograms
from forebay_server.loadtest.errors import CannotWriteError, UsageError
from forebay_server.loadtest.html import html
from forebay_server.loadtest.markdown import markdown, text
from forebay_server.loadtest.places import place_fault
from forebay_server.loadtest.report import Document, is_document


@dataclass(frozen=True, slots=True)
class Outputs:
    """Paths to write to; None: not wanted."""

    json: str | None = None
    html: str | None = None
    markdown: str | None = None
    hgrm: str | None = None

    def check(self) -> None:
        """Raise UsageError now rather than after a long run if a file cannot be written."""
        wanted = [path for path in (self.json, self.html, self.markdown, self.hgrm) if path is not None]
        if wanted.count("-") > 1:
            raise UsageError("only one report can go to standard output")
        files = [path for path in wanted if path != "-"]
        if len(set(files)) < len(files):
            raise UsageError("two reports have the same file: name one for each")
        for path in files:
            if problem := place_fault(Path(path)):
                raise UsageError(problem)

    def write(self, document: Document) -> None:
        """Write all requested reports; the text report goes to standard output unless another one does."""
        content = {
            self.json: json.dumps(document, indent=1, allow_nan=False) + "\n" if self.json else "",
            self.html: html(document) if self.html else "",
            self.markdown: markdown(document) if self.markdown else "",
            self.hgrm: histograms.hgrm(document["latency_hdr"]) if self.hgrm else "",
        }
        for path, body in content.items():
            if path == "-":
                sys.stdout.write(body)
            elif path is not None:
                _write(Path(path), body)
        if "-" not in content:
            sys.stdout.write(text(document))


def read(path: Path) -> Document:
    """Read a JSON report. Raises UsageError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = near_file(path, {".json"}) if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"cannot read {path}: {error.strerror}{hint}") from error
    except ValueError as error:
        raise UsageError(f"{path.name} is no JSON: {error}") from error
    if not is_document(document):
        raise UsageError(f"{path.name} is no report of this version of forebay load")
    return dict(document)


def write_json(path: str | None, document: Document, text_instead: str) -> None:
    """Write a small document where --json says; the text goes to standard output unless the document does."""
    body = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(body)
        return
    if path is not None:
        _write(Path(path), body)
    sys.stdout.write(text_instead)


def _write(path: Path, body: str) -> None:
    try:
        path.write_text(body, encoding="utf-8")
    except OSError as error:
        raise CannotWriteError(f"cannot write {path}: {error.strerror}") from error
