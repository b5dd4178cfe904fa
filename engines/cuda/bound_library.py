"""Binding a vendor's library in C by ctypes, with every function's types declared."""

import ctypes
from collections.abc import Collection, Mapping
from typing import Any


def bound(path: str, functions: Mapping[str, tuple[Any, ...]], quick: Collection[str]) -> Any:  # noqa: ANN401
    """Return the library at a path.

    Args:
        path: of the library, or its name for the dynamic linker.
        functions: types of the arguments of each function; all return an int.
        quick: functions that keep the interpreter's lock, since they take less time than to get it back.

    Raises:
        OSError: there is no such library.
        AttributeError: it lacks a function.
    """
    library, keeping = ctypes.CDLL(path), ctypes.PyDLL(path)
    for name, types in functions.items():
        function = getattr(keeping if name in quick else library, name)
        function.argtypes, function.restype = types, ctypes.c_int
        setattr(library, name, function)
    return library
