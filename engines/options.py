"""Reading a backend's options: text in, checked values out, an unknown key is an error with the nearest name."""

import difflib
from collections.abc import Iterable, Mapping

from forebay_server.engines.errors import ModelFileError

MOST = 2**31 - 1  # the integer range of the libraries
MOST_MS = 600_000  # ten minutes: a client may write options, and a longer time is a mistake or an attack
MOST_THREADS = 256  # equal to the limit of the service's settings
MOST_ROWS = 4096  # as in service.models.config
MOST_SHOWN = 64  # characters of a value in a message: it may be a client's


class OptionReader:
    """The options of one backend. Every message names the backend, the key and the expected value."""

    def __init__(self, backend: str, options: Mapping[str, str], known: Iterable[str]) -> None:
        """Raise ModelFileError if a key of `options` is not among `known`."""
        self._backend = backend
        self._options = options
        names = sorted(known)
        for key in options:
            if key not in names:
                nearest = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names) or 'none'}"
                raise ModelFileError(f"backend {backend!r} has no option {key!r}: {hint}")

    def text(self, key: str, default: str, choices: tuple[str, ...] = ()) -> str:
        """Return an option as text, one of `choices` if any are given."""
        value = self._options.get(key, default)
        if choices and value not in choices:
            raise self._error(key, value, f"one of {', '.join(choices)}")
        return value

    def integer(self, key: str, default: int, minimum: int = 0, maximum: int = MOST) -> int:
        """Return an option as a whole number from `minimum` to `maximum`."""
        value = self._options.get(key)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise self._error(key, value, "a whole number") from None
        if number < minimum:
            raise self._error(key, value, f"at least {minimum}")
        if number > maximum:
            raise self._error(key, value, f"at most {maximum}")
        return number

    def milliseconds(self, key: str, default: float) -> float:
        """Return an option as a duration in milliseconds, from 0 to MOST_MS."""
        value = self._options.get(key)
        if value is None:
            return default
        try:
            duration_ms = float(value)
        except ValueError:
            raise self._error(key, value, "a number of milliseconds") from None
        if not 0 <= duration_ms <= MOST_MS:
            raise self._error(key, value, f"a number of milliseconds from 0 to {MOST_MS}")
        return duration_ms

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Return an option such as `3,224,224` as a shape of positive dimensions; None if it is not given."""
        value = self._options.get(key)
        if value is None:
            return None
        try:
            shape = tuple(int(dim) for dim in value.split(","))
        except ValueError:
            raise self._error(key, value, "dimensions such as 3,224,224") from None
        if any(dim < 1 for dim in shape):
            raise self._error(key, value, "dimensions of at least 1")
        return shape

    def _error(self, key: str, value: str, expected: str) -> ModelFileError:
        shown = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}..."
        return ModelFileError(f"backend {self._backend!r}: option {key} is {shown!r}, but must be {expected}")
