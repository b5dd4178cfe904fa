"""Code on the pages: Python calls what there is, with arguments that it takes; commands have their options."""

import ast
import inspect
import re
import shlex
import typing

import pytest
import typer.main

import forebay
import forebay.aio
from forebay_server.service.cli.commands import app
from tests.support.repository import ROOT, tracked_files

BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```", flags=re.MULTILINE | re.DOTALL)
DOCSTRING_CODE = re.compile(r"\n\n(?P<code>(?:    .*\n|\n)*    .*(?:client|stream)\..*\n(?:    .*\n|\n)*)")
VARIABLES = {"client": "Client", "stream": "Stream"}
"""Of blocks that begin in the middle: name -> class of forebay, or of forebay.aio in a block that awaits."""
RESULTS = {"result": forebay.Result, "found": forebay.Detection}


def pages():
    """Pages about the present: not decisions, and not the changes, which name commands of their time."""
    past = {ROOT / "CHANGELOG.md"}
    return [
        path
        for path in tracked_files()
        if path.suffix == ".md" and path not in past and not path.is_relative_to(ROOT / "docs" / "adr")
    ]


def python_blocks():
    for path in pages():
        for match in BLOCK.finditer(text := path.read_text()):
            if match["language"] in {"python", "py"}:
                yield f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 2}", match["code"]


def returned(function):
    """The class that a function of the library returns; None if it is none of the library's."""
    kind = typing.get_type_hints(function).get("return")
    options = [each for each in (typing.get_args(kind) or (kind,)) if inspect.isclass(each)]
    return next((each for each in options if each.__module__.startswith("forebay.")), None)


class Calls(ast.NodeVisitor):
    """Collects the faults of one block: names that do not exist, arguments that a call does not take."""

    def __init__(self, library):
        self.kinds = {name: getattr(library, kind) for name, kind in VARIABLES.items()} | RESULTS
        self.faults = []

    def kind_of(self, node):  # noqa: PLR0911 - one for each kind of node
        """The class of a value, or the module, as far as it is known."""
        match node:
            case ast.Name(id="forebay"):
                return forebay
            case ast.Name(id=name):
                return self.kinds.get(name)
            case ast.Await(value=value):
                return self.kind_of(value)
            case ast.Call(func=function):
                called = self.kind_of(function)
                return called if inspect.isclass(called) else returned(called) if inspect.isfunction(called) else None
            case ast.Attribute(value=value, attr=name):
                owner = self.kind_of(value)
                if owner is None:
                    return None
                fields = getattr(owner, "__annotations__", {})
                if not hasattr(owner, name) and name not in fields:
                    self.faults.append(f"line {node.lineno}: {owner.__name__} has no {name}")
                    return None
                return getattr(owner, name, None)
        return None

    def visit_withitem(self, node):
        self.generic_visit(node)
        if isinstance(node.optional_vars, ast.Name) and (kind := self.kind_of(node.context_expr)):
            self.kinds[node.optional_vars.id] = kind

    def visit_Assign(self, node):
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name):
            self.kinds[node.targets[0].id] = self.kind_of(node.value)

    def visit_Attribute(self, node):
        self.kind_of(node)

    def visit_Call(self, node):
        self.generic_visit(node)
        called = self.kind_of(node.func)
        if not callable(called):
            return
        if isinstance(node.func, ast.Attribute) and inspect.isclass(self.kind_of(node.func.value)):
            called = called.__get__(object())  # without self
        given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        try:
            bound = inspect.signature(called).bind(*node.args, **given)
        except TypeError as error:
            self.faults.append(f"line {node.lineno}: {ast.unparse(node.func)}: {error}")
            return
        known = forebay.client.keywords.StreamKeywords.__annotations__
        wrong = [name for name in bound.arguments.get("keywords", {}) if name not in known]
        self.faults += [f"line {node.lineno}: {ast.unparse(node.func)} takes no {name}" for name in wrong]


def faults_of(code):
    tree = ast.parse(code)
    is_async = any(isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor) for node in ast.walk(tree))
    calls = Calls(forebay.aio if is_async else forebay)
    calls.visit(tree)
    return calls.faults


def parsed(code):
    """The code, in a function if it awaits outside one."""
    return "async def _():\n" + "".join(f"    {line}\n" for line in code.splitlines()) if "async with" in code else code


PYTHON = {where: parsed(code) for where, code in python_blocks()}
for module in (forebay, forebay.aio):
    text = inspect.cleandoc(module.__doc__ or "") + "\n"
    for number, part in enumerate(DOCSTRING_CODE.findall(f"\n\n{text}")):
        PYTHON[f"{module.__name__} {number}"] = parsed(inspect.cleandoc(part))


@pytest.mark.parametrize("where", PYTHON)
def test_python_on_a_page_calls_what_there_is(where):
    assert faults_of(PYTHON[where]) == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("stream.receive(timeout=1)", "line 1: stream.receive: got an unexpected keyword argument 'timeout'"),
        ("stream.recv()", "line 1: Stream has no recv"),
        ("client.stream('door', model='m', codec='jpeg')", "line 1: client.stream takes no codec"),
        ("with forebay.Client('a:1') as c:\n    c.infers('x')", "line 2: Client has no infers"),
        ("forebay.Tls(ca_file='ca.pem')", "line 1: forebay.Tls: got an unexpected keyword argument 'ca_file'"),
        ("reply = stream.receive()\nprint(reply.boxes)", "line 2: Result has no boxes"),
        ("forebay.Clint('a:1')", "line 1: forebay has no Clint"),
    ],
)
def test_a_call_that_cannot_be_is_noticed(code, fault):
    assert fault in faults_of(code)


def commands():
    """Each command line of `forebay` on a page, in a block or in a sentence, with its page."""
    for path in pages():
        text = path.read_text()
        for match in BLOCK.finditer(text):
            lines = (
                re.sub(r"\\\n\s*", " ", match["code"]).splitlines() if match["language"] not in {"python", "py"} else ()
            )
            yield from ((path, found) for line in lines for found in re.findall(r"^(?:\$ )?(forebay [^|&;>]*)", line))
        yield from ((path, found) for found in re.findall(r"`(forebay [^`\n|&;>]*)`", BLOCK.sub("", text)))


def fault_of_command(line):
    """Why a command line cannot be, by its words; None if it can."""
    words = shlex.split(line, comments=True)[1:]
    command, path = typer.main.get_command(app), "forebay"
    context = command.make_context("forebay", [], resilient_parsing=True)
    while hasattr(command, "list_commands") and words and not words[0].startswith("-"):
        name, *words = words
        if name not in command.list_commands(context):
            return f"{path} has no command {name}"
        command, path = command.get_command(context, name), f"{path} {name}"
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    wrong = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return next((f"{path} has no option {word}" for word in wrong if word not in options), None)


COMMANDS = sorted({(path.relative_to(ROOT).as_posix(), line) for path, line in commands()})


def test_commands_on_the_pages_have_their_options():
    assert len(COMMANDS) > 100
    assert [f"{where}: {fault}" for where, line in COMMANDS if (fault := fault_of_command(line))] == []


def test_a_command_that_cannot_be_is_noticed():
    assert fault_of_command("forebay serve best.onnx --host x") == "forebay serve has no option --host"
    assert fault_of_command("forebay load search --slo-p9 50ms") == "forebay load search has no option --slo-p9"
    assert fault_of_command("forebay streaming a.mp4") == "forebay has no command streaming"
    assert fault_of_command("forebay models verify") == "forebay models has no command verify"
    assert fault_of_command("forebay load --cameras 4 --fps 10   # measures") is None


def test_the_page_on_plans_has_every_option_of_the_command():
    root = typer.main.get_command(app)
    command = root.get_command(root.make_context("forebay", [], resilient_parsing=True), "plan")
    page = (ROOT / "docs" / "planning.md").read_text()
    assert [option for each in command.params for option in each.opts if f"`{option}" not in page] == ["model"]
