"""Checks the contents of a PyTorch model before it is loaded. Pure: knows the formats, not PyTorch.

Theory of operation
    A torch.export program (.pt2) is JSON, and PyTorch turns several of its strings into Python: a `target` is looked up
    from the module `torch` downwards (`torch.os.system` is one), an `expr_str` is evaluated, `guards_code` is executed,
    names end up in generated source. So every string must have the form that PyTorch itself writes there: targets to
    operators of known libraries, expressions to sums, products and comparisons of symbols, names to letters, digits and
    dots. TorchScript (.pt) is a language without access to Python, but some of its operators open files by name.

    This closes the known attacks. It does not make a foreign model safe: it is a program that the server runs.

Source: torch/_export/serde/serialize.py, torch/export/_unlift.py, torch/export/pt2_archive/_package.py of PyTorch 2.13.
"""

import ast
import json
import re
from collections.abc import Iterable
from typing import Any

MOST_EXPRESSION_CHARACTERS = 4096
_NAME = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)
# an object with one of these makes PyTorch import a module
_IMPORTS = frozenset({"default_factory_module", "__enum__"})
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized|quantized_decomposed|torchvision|torchaudio|torchao)"
    r"\.(?P<name>[A-Za-z]\w*|_[a-z]\w*|__i?(?:and|or|xor|lshift|rshift)__)(?:\.(?!__)\w+)?",
    re.ASCII,
)
_HIGHER_ORDER = re.compile(
    r"torch\.ops\.higher_order\.(?:cond|while_loop|map_impl|scan|associative_scan|flex_attention|invoke_subgraph"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|auto_functionalized|auto_functionalized_v2)"
)
_SYMBOLIC = re.compile(
    r"torch\.(?:sym_(?:int|float|max|min|not|ite|sum)|_sym_[a-z0-9_]+)|math\.[a-z0-9]+"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|lt|le|gt|ge|eq|ne|and_|or_|xor|not_|getitem"
    r"|lshift|rshift|index|truth)"
)
_OPENS_FILES = frozenset({"from_file", "save", "load_tensor"})
_SCRIPT_OPENS_FILES = re.compile(rb"\b(?:from_file|save|load_tensor)\b")
"""The names alone, because a call may be split: by a comment before its bracket, or by another name for `f`."""
_ATTRIBUTE = re.compile(rb"""\bgetattr\((?:(?!getattr)[\w.()]){1,400}, "[^"\\\n]*"\)""")
"""TorchScript's form of an attribute that is no identifier, such as a layer "0". Escapes could hide a name."""
_GETATTR = re.compile(rb"\bgetattr\b")
_MOST_NESTED = 64
_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs floor ceiling sqrt max min
        Equality Eq Unequality Ne StrictLessThan Lt LessThan Le StrictGreaterThan Gt GreaterThan Ge
        And Or Not Piecewise ExprCondPair Tuple Where Identity IsNonOverlappingAndDenseIndicator
        FloorDiv CleanDiv CeilDiv TrueDiv IntTrueDiv FloatTrueDiv PythonMod ModularIndexing LShift RShift
        PowByNatural FloatPow CeilToInt FloorToInt TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat
        """,
    )
)  # of sympy and of torch.utils._sympy, as exports write them
_METHODS = frozenset({"size", "stride", "storage_offset"})
_EXPRESSION_NODES = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Tuple),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq),
)
_GUARD_NODES = (*_EXPRESSION_NODES, ast.Subscript, ast.Attribute, ast.BoolOp, ast.And, ast.Or, ast.Not)
_FREE = frozenset({"as_string", "as_strings", "metadata", "torch_version"})
"""Fields whose strings PyTorch quotes, or writes into comments."""


class UnsafeModelError(ValueError):
    """A model asks for something that is not served; the message names it."""


def vet_program(document: bytes) -> None:
    """Check every string of a torch.export program. Raises UnsafeModelError."""
    try:
        pending: list[tuple[str, Any]] = [("", json.loads(document))]
    except (ValueError, RecursionError) as error:
        raise UnsafeModelError(f"its graph is not JSON: {type(error).__name__}") from None
    while pending:
        key, value = pending.pop()
        if key in _FREE:
            continue
        if isinstance(value, dict):
            for name, inner in value.items():
                _vet_string("", name)
                pending.append((name, inner))
        elif isinstance(value, list):
            pending += [(key, inner) for inner in value]
        elif isinstance(value, str):
            _vet_string(key, value)


def vet_payloads(document: bytes) -> None:
    """Check the members that a table of weights or constants names. Raises UnsafeModelError."""
    try:
        entries = json.loads(document)["config"].values()
        paths = [entry["path_name"] for entry in entries]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise UnsafeModelError("its table of weights cannot be read") from None
    for path in paths:
        if not (isinstance(path, str) and re.fullmatch(r"(?:weight|tensor)_\d+", path, re.ASCII)):
            raise UnsafeModelError(
                f"holds a pickled object ({str(path)[:64]!r}), which is not read: export tensors only"
            )


def vet_script(sources: Iterable[bytes]) -> None:
    """Check the source code of a TorchScript program. Raises UnsafeModelError."""
    for source in sources:
        found = _SCRIPT_OPENS_FILES.search(source)
        if found is not None:
            raise UnsafeModelError(
                f"has the name {found[0].decode()!r}, as operators that open files by name: name it otherwise"
            )
        if _hides_a_name(source):
            raise UnsafeModelError("looks up a name by getattr that cannot be read: save it with torch.jit.save")


def _hides_a_name(source: bytes) -> bool:
    """Whether the argument of a `getattr` is anything but a plain name; one may be within another."""
    for _ in range(_MOST_NESTED):
        if not _GETATTR.search(source):
            return False
        source, count = _ATTRIBUTE.subn(b"_", source)
        if not count:
            break
    return True


def _vet_string(key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        _vet_target(text)
    elif key in ("expr_str", "guards_code"):
        _vet_expression(text, _EXPRESSION_NODES if key == "expr_str" else _GUARD_NODES)
    elif key in ("in_spec", "out_spec"):
        _vet_spec(text)
    elif not _NAME.fullmatch(text):
        raise UnsafeModelError(f"{text[:64]!r} is no name that an export has")


def _vet_target(target: str) -> None:
    operator = _OPERATOR.fullmatch(target)
    if operator is not None and operator["name"] not in _OPENS_FILES:
        return
    if not (operator is None and (_HIGHER_ORDER.fullmatch(target) or _SYMBOLIC.fullmatch(target))):
        raise UnsafeModelError(f"calls {target[:64]!r}, which is no operator that is served")


def _vet_spec(text: str) -> None:
    """Check the structure of inputs or outputs: JSON, whose contexts are JSON again, with the names of arguments."""
    pending = [text]
    while pending:
        try:
            values = [json.loads(pending.pop())]
        except (ValueError, RecursionError):
            raise UnsafeModelError("its inputs or outputs have a structure that is not served: use tensors") from None
        while values:
            value = values.pop()
            if isinstance(value, dict):
                context = value.get("context")
                pending += [context] if isinstance(context, str) else []
                values += [*value, *(inner for key, inner in value.items() if key != "context")]
            elif isinstance(value, list):
                values += value
            elif isinstance(value, str) and (value in _IMPORTS or not _NAME.fullmatch(value)):
                raise UnsafeModelError(f"{value[:64]!r} is no name of an input or an output that is served")


def _vet_expression(text: str, kinds: tuple[type[ast.AST], ...]) -> None:
    if len(text) > MOST_EXPRESSION_CHARACTERS or not _is_expression(text, kinds):
        raise UnsafeModelError(f"{text[:64]!r} is no size that an export has")


def _is_expression(text: str, kinds: tuple[type[ast.AST], ...]) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, kinds) and _is_size(node) for node in ast.walk(tree))


def _is_size(node: ast.AST) -> bool:
    """Whether a node of a known kind can be part of an expression of sizes."""
    match node:
        case ast.Call():
            return _is_call(node)
        case ast.Attribute(value=value, attr=name):
            return name in _METHODS or (_is_math(value) and name.isalnum())
        case ast.Name(id=name):
            return not name.startswith("_")
        case ast.Constant(value=str(text)):
            return _NAME.fullmatch(text) is not None
        case _:
            return True


def _is_call(call: ast.Call) -> bool:
    """Whether it calls a known function, one of `math`, or a method without arguments."""
    match call.func:
        case ast.Name(id=name):
            return name in _FUNCTIONS
        case ast.Attribute(value=value):
            return _is_math(value) or not (call.args or call.keywords)
        case _:
            return False


def _is_math(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "math"
