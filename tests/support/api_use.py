"""Which names of a vendor's library our code uses, read from its source.

The code keeps to a convention that makes this possible: a variable or field of a vendor's type always has the same
name (`trt_context`, `builder`, ...). `hasattr(x, "name")` marks names that only some releases have.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Use:
    """Attributes used, by the name of the variable they are used on; and those that are only used if present."""

    required: dict[str, set[str]] = field(default_factory=dict)
    optional: dict[str, set[str]] = field(default_factory=dict)


def read_use(files: list[Path], roots: set[str]) -> Use:
    """Collect dotted attribute chains that start at a variable or field called one of `roots`."""
    use = Use()
    for file in files:
        tree = ast.parse(file.read_text())
        guarded = _guarded(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                root, chain = _chain(node)
                if root in roots and chain:
                    target = use.optional if (root, chain[0]) in guarded else use.required
                    target.setdefault(root, set()).add(".".join(chain))
    return use


def _guarded(tree: ast.AST) -> set[tuple[str, str]]:
    """Names within an `if hasattr(...)` statement, in either branch."""
    found = set()
    for node in ast.walk(tree):
        tests = (
            [n for n in ast.walk(node.test) if isinstance(n, ast.Call)] if isinstance(node, ast.If | ast.IfExp) else []
        )
        if any(isinstance(call.func, ast.Name) and call.func.id == "hasattr" for call in tests):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute):
                    root, chain = _chain(inner)
                    if root and chain:
                        found.add((root, chain[0]))
    return found


def _chain(node: ast.Attribute) -> tuple[str | None, list[str]]:
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        names.insert(0, current.attr)
        current = current.value
    if isinstance(current, ast.Name):
        names.insert(0, current.id)
    elif isinstance(current, ast.Call):
        return None, []
    for index, name in enumerate(names):
        if name.lstrip("_") in ROOTS:
            return name.lstrip("_"), names[index + 1 :]
    return None, []


ROOTS = {
    "trt", "runtime", "driver", "builder", "network", "parser", "config", "profile",
    "trt_runtime", "trt_engine", "trt_context", "inspector", "tensor",
}  # fmt: skip
