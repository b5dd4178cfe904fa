"""Reads values of `parameters`: text in, checked values out, and one line that says how to mend a wrong one. Pure."""

import difflib
import json
import math
from collections.abc import Collection, Mapping

from forebay_server.service.models.config_text import ConfigError

MAX_SHOWN = 60  # characters of a wrong value in a message
MAX_NUMBER = 1e6  # of a mean, a deviation or a scale: pixels are 0 to 255


class ParameterReader:
    """Values by key, as written; every method raises ConfigError for a value that is not of its kind.

    Args:
        values: all parameters.
        filename: for messages, relative to the repository.
    """

    def __init__(self, values: Mapping[str, str], filename: str) -> None:
        self._values = values
        self._filename = filename

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Return one of `choices`, or None."""
        value = self._values.get(key)
        if value is not None and value not in choices:
            raise self._error(key, f"one of {', '.join(choices)}")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        """Return a number from `least` to `most`, or None."""
        if key not in self._values:
            return None
        try:
            number = float(self._values[key])
        except ValueError:
            number = float("nan")
        if not least <= number <= most:  # false for NaN as well
            raise self._error(key, f"a number from {least:g} to {most:g}")
        return number

    def whole(self, key: str, least: int, most: int) -> int | None:
        """Return a whole number from `least` to `most`, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if not _is_whole(value, least, most):
            raise self._error(key, f"a whole number from {least} to {most}")
        return int(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return names with commas between them, or of a list in JSON, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        names = _listed(value) if value.lstrip().startswith("[") else tuple(name.strip() for name in value.split(","))
        if not names or not all(names):
            raise self._error(key, "names with commas between them, none empty, or a list of them in JSON")
        return names

    def shape(self, key: str, counts: tuple[int, ...], most: int) -> tuple[int, int] | None:
        """Return (number, values of each) of `17x3`, where the values of each are among `counts`, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        number, _, each = value.partition("x")
        if not (_is_whole(number, 1, most) and _is_whole(each, min(counts), max(counts)) and int(each) in counts):
            raise self._error(key, f"NUMBERx{' or NUMBERx'.join(map(str, counts))}, such as 17x{max(counts)}")
        return int(number), int(each)

    def numbers(self, key: str, counts: tuple[int, ...], *, is_nonzero: bool = False) -> tuple[float, ...] | None:
        """Return as many numbers as `counts` allows, with commas between them, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        numbers = tuple(_number(part) for part in value.split(",", max(counts)))
        is_usable = all(
            math.isfinite(each) and abs(each) <= MAX_NUMBER and (each or not is_nonzero) for each in numbers
        )
        if len(numbers) not in counts or not is_usable:
            kind = "number" if not is_nonzero else "number other than 0"
            many = "" if counts == (1,) else f", or {max(counts)} with commas between them"
            raise self._error(key, f"a {kind} such as 0.5 or 1/255{many}")
        return numbers

    def size(self, key: str, most: int) -> tuple[int, int] | None:
        """Return (width, height) of `640x480` or, for a square, `640`, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        sides = value.split("x", 2)
        if len(sides) > 2 or not all(_is_whole(side, 1, most) for side in sides):
            raise self._error(key, f"WIDTHxHEIGHT such as 640x480, or one number, from 1 to {most}")
        return int(sides[0]), int(sides[-1])

    def others(self, own_keys: Collection[str]) -> dict[str, str]:
        """Return every parameter whose key is not among `own_keys`, or raise if one resembles those."""
        others = {key: value for key, value in self._values.items() if key not in own_keys}
        for key in others:
            if close := difflib.get_close_matches(key, own_keys, n=1, cutoff=0.85):
                raise ConfigError(f"{self._filename}: parameter {key!r}: did you mean {close[0]!r}?")
        return others

    def _error(self, key: str, expected: str) -> ConfigError:
        value = self._values[key]
        shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."
        return ConfigError(f"{self._filename}: parameter {key!r} is {shown!r}: it must be {expected}")


def _listed(text: str) -> tuple[str, ...]:
    """Return the names of a list in JSON; nothing if it is none."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(name.strip() for name in names) if is_list else ()


def _is_whole(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most


def _number(text: str) -> float:
    """A number, or a fraction such as 1/255; not a number if it is neither."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        return math.nan
