"""Every constant of batching is in one module, with its reason."""

import ast
import re

from tests.support.repository import ROOT

BATCHING = ROOT / "service" / "batching"
TABLE = BATCHING / "constants.py"


def constants_of(path):
    """The names of numbers that a module defines, and whether text follows each."""
    body = ast.parse(path.read_text()).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign):
            continue
        names = [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        if any(re.fullmatch(r"_?[A-Z][A-Z_]+", name) for name in names) and is_number(statement.value):
            reason = following.value.value if is_text(following) else ""
            yield ", ".join(names), reason


def is_number(value):
    """Whether an expression is made of numbers and of other constants alone: no call makes it."""
    return not any(isinstance(node, ast.Call | ast.Constant) and not has_number(node) for node in ast.walk(value))


def has_number(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def is_text(statement):
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def test_no_other_module_of_batching_defines_a_constant():
    others = {path.name: list(constants_of(path)) for path in sorted(BATCHING.glob("*.py")) if path != TABLE}
    assert {name: found for name, found in others.items() if found} == {}


def test_every_constant_of_batching_says_why():
    reasons = dict(constants_of(TABLE))
    assert len(reasons) > 50
    assert [name for name, reason in reasons.items() if len(reason.split()) < 4] == []
