"""Checks the arguments of `Client` and `Client.stream` beyond their types, and names the argument that is wrong."""

import difflib
from collections.abc import Mapping
from typing import Any, cast

from forebay.client.keywords import StreamKeywords
from forebay.client.options import Reconnection, StreamOptions, Tls

_COUNTS = ("width", "height", "queue_frames", "max_in_flight", "priority", "max_results")
_SHARES = ("score_threshold", "iou_threshold")
_TEXTS = ("model", "version")
_LISTS = ("outputs", "tensor_names", "shape")
_TIME_LIMITS = "receive, send, infer and close take a time limit, timeout_s=SECONDS"
_ELSEWHERE = dict.fromkeys(("deadline", "timeout", "timeout_ms", "timeout_s"), _TIME_LIMITS)
"""Arguments that a call has instead of a stream -> words that name it."""
_LARGEST = 2**32 - 1  # of a number of the wire


def stream_options(camera: str, keywords: StreamKeywords) -> StreamOptions:
    """Return checked options.

    Raises:
        TypeError: an argument is missing, unknown, or of the wrong type.
        ValueError: an argument has a value that is not allowed.
    """
    given = cast("dict[str, Any]", keywords)
    _refuse_unknown(given)
    if not isinstance(camera, str):
        raise TypeError(f'camera is a text, the name of the stream, such as "door", not {camera!r:.60}')
    if given.get("model") is None:
        raise TypeError('model is missing: stream("door", model="detector"); client.models() lists those of the server')
    _check_texts(given)
    _check_numbers(given)
    return StreamOptions(camera=camera, **keywords)


def check_client(address: object, tls: object, reconnection: object) -> None:
    """Check the arguments of a client. Raises TypeError."""
    if not isinstance(address, str):
        raise TypeError(
            f'the address is a text, such as "127.0.0.1:8001", or several with commas in between, not {address!r:.60}'
        )
    if tls is not None and not isinstance(tls, Tls):
        raise TypeError(f'tls is forebay.Tls(ca="ca.pem"), or None for plain text, not {tls!r:.60}')
    if reconnection is not None and not isinstance(reconnection, Reconnection):
        raise TypeError(f"reconnection is forebay.Reconnection(...), not {reconnection!r:.60}")


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in StreamKeywords.__annotations__:
            raise TypeError(f"a stream has no argument {name!r}: {_ELSEWHERE.get(name) or _near(name)}")


def _near(name: str) -> str:
    """Return words that name the arguments that were likely meant."""
    near = [known for known in StreamKeywords.__annotations__ if known.endswith(f"_{name}")]
    near = near or difflib.get_close_matches(name, StreamKeywords.__annotations__, 1)
    return f"did you mean {' or '.join(near)}?" if near else "help(forebay.client.keywords.StreamKeywords) has all"


def _check_texts(given: Mapping[str, Any]) -> None:
    for name in given.keys() & set(_TEXTS):
        if not isinstance(given[name], str):
            raise TypeError(f'{name} is a text, such as "{given[name]!s:.60}", not {type(given[name]).__name__}')
    for name in given.keys() & set(_LISTS):
        if isinstance(given[name], str):
            raise TypeError(f'{name} is a list: write {name}=["{given[name]:.60}"]')
    headers = given.get("headers")
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f'headers is a dict, such as {{"name": "value"}}, not {type(headers).__name__}')


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name in (*_COUNTS, *_SHARES, "budget_ms"):
        value = given.get(name)
        if value is None:
            continue
        is_count = name in _COUNTS
        try:
            number = value.__index__() if is_count else float(value + 0)
        except (TypeError, AttributeError):
            kind = "a whole number" if is_count else "a number"
            raise TypeError(f"{name} is {kind}, not {value!r:.60}") from None
        most = 1 if name in _SHARES else _LARGEST
        if not 0 <= number <= most:
            raise ValueError(f"{name} must be 0 to {most}, not {value!r:.60}")
