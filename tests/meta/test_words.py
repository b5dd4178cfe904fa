"""The worst patterns of unclear English stay rare in docstrings, comments, messages and pages.

A limit is the number of places per 1,000 lines of text that the pages and the code have reached. Lower it after mending
places; raise it never.
"""

import ast
import io
import re
import tokenize

import pytest

from tests.support.repository import ROOT, is_generated, tracked_files

PATTERNS = {
    "nobody, somebody, whoever": r"\b(?:no|some|any|every)body\b|\b(?:some|any|every)one\b|\bno one\b|\bwhom?ever\b",
    "whatever, whichever": r"\bwhat(?:so)?ever\b|\bwhichever\b",
    "is told": r"\b(?:is|are|was|were|be|been|being)\s+(?:\w+ly\s+)?told\b|:\s+told\s",
    "what, instead of a noun": (
        r"(?:^|[.:;,(]\s+|\b(?:of|to|for|with|from|by|in|on|at|than|that|and|or|is|as)\s+)what\b(?!:)"
    ),
    "a parameter without a meaning": r"(?m)^ +\w+: (?:time|likewise|see above)\.$",
}
SHIPPED = ("service", "engines", "forebay", "loadtest", "examples", "client")
LIMITS = {
    ("nobody, somebody, whoever", "code"): 0.0,
    ("nobody, somebody, whoever", "tests, benchmarks and pages"): 0.0,
    ("whatever, whichever", "code"): 0.0,
    ("whatever, whichever", "tests, benchmarks and pages"): 0.0,
    ("is told", "code"): 0.0,
    ("is told", "tests, benchmarks and pages"): 0.0,
    ("what, instead of a noun", "code"): 0.85,
    ("what, instead of a noun", "tests, benchmarks and pages"): 4.6,
    ("a parameter without a meaning", "code"): 0.0,
    ("a parameter without a meaning", "tests, benchmarks and pages"): 0.0,
}
"""By pattern and part of the repository."""
GENERATED_PAGES = {"docs/benchmarks.md"}
EXEMPT = {"tests/meta/test_words.py", *GENERATED_PAGES}
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`|(?<!\w)'[\w.-]+'", flags=re.MULTILINE | re.DOTALL)
WORDS_OF_A_MESSAGE = 3


def texts_of_a_module(source):
    """Every comment, docstring and message of a module, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if len(text.split()) >= WORDS_OF_A_MESSAGE:
            yield node.lineno, text


def texts():
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        if name in EXEMPT or is_generated(path):
            continue
        if path.suffix == ".md":
            yield name, 1, path.read_text()
        elif path.suffix == ".py":
            for line, text in texts_of_a_module(path.read_text()):
                yield name, line, text


def places(pattern, text):
    """The lines of `text` where `pattern` occurs, from 0, and the line's words; code in it does not count."""
    plain = CODE.sub(lambda code: "_" + "\n" * code[0].count("\n"), text)
    for match in re.finditer(pattern, plain, flags=re.IGNORECASE):
        line = plain.count("\n", 0, match.end())
        yield line, plain.split("\n")[line].strip()


@pytest.fixture(scope="module")
def prose():
    return list(texts())


@pytest.mark.parametrize(("pattern", "part"), LIMITS)
def test_the_text_has_few_places_of(pattern, part, prose):
    chosen = [each for each in prose if each[0].startswith(SHIPPED) == (part == "code")]
    line_count = sum(text.count("\n") + 1 for _, _, text in chosen)
    found = [
        f"{name}:{first + line}: {words}"
        for name, first, text in chosen
        for line, words in places(PATTERNS[pattern], text)
    ]
    per_1000_lines = 1000 * len(found) / line_count
    assert per_1000_lines <= LIMITS[pattern, part], "\n".join(
        [f"{len(found)} places, {per_1000_lines:.2f} per 1,000 lines of {line_count}", *found]
    )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("nobody, somebody, whoever", "Thread: whoever calls."),
        ("whatever, whichever", "It ends, whatever hangs."),
        ("is told", "on_fatal: told about errors."),
        ("is told", "a client that\nis told at once"),
        ("what, instead of a noun", "the age of\nwhat is read"),
        ("what, instead of a noun", "What is bound waits."),
        ("a parameter without a meaning", "Args:\n    clock: time.\n"),
    ],
)
def test_an_example_is_noticed(pattern, text):
    assert len(list(places(PATTERNS[pattern], text))) == 1


def test_code_and_names_in_a_text_do_not_count():
    assert list(places(PATTERNS["nobody, somebody, whoever"], "`nobody` and model 'nobody'\n```\nnobody\n```\n")) == []


def test_every_kind_of_text_of_a_module_is_read():
    source = '"""A docstring of it."""\n\nx = f"a message of {1} value"  # a comment\n'
    assert [(line, text.strip()) for line, text in texts_of_a_module(source)] == [
        (3, "a comment"),
        (1, "A docstring of it."),
        (3, "a message of"),
    ]
