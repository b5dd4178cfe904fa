"""Calls that need a header with a secret, in the syntax of both ends: `CATEGORY[,CATEGORY...]:KEY=VALUE`.

The names of the categories (`streams` and `reflection` aside) and of the header are Triton's;
`service.frontend.restrictions` lists the calls of each. Pure, and imports no large library, so that `forebay health`
is quick.
"""

import json
import re
from collections.abc import Sequence

CATEGORIES = (
    *("health", "metadata", "inference", "shared-memory", "model-config"),
    *("model-repository", "statistics", "trace", "logging", "streams", "reflection"),
)
HEADER_PREFIX = "triton-grpc-protocol-"
REFUSAL = "This protocol is restricted, expecting header"
Headers = tuple[tuple[str, str], ...]


def split_lines(text: str) -> tuple[str, ...]:
    """Return the restrictions in one string, as in the environment: separated by semicolons, or a list in JSON."""
    if text.startswith("["):
        return tuple(json.loads(text))
    return tuple(part for part in text.split(";") if part)


def read_restrictions(lines: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the key and the value that calls of a category must have, by category.

    Raises:
        ValueError: not in the syntax of the module, or a category that does not exist or is named twice.
    """
    secrets: dict[str, tuple[str, str]] = {}
    for line in lines:
        categories, colon, pair = line.partition(":")
        key, equals, value = pair.partition("=")
        if not (colon and equals and value and re.fullmatch(r"[a-z0-9_.-]+", key) and value.isascii()):
            raise ValueError("restricted_protocol must be CATEGORY[,CATEGORY...]:KEY=VALUE; KEY in small letters")
        for category in categories.split(","):
            if category not in CATEGORIES:
                known = ", ".join(CATEGORIES)
                raise ValueError(f"restricted_protocol: there is no category {category[:64]!r}; there are {known}")
            if category in secrets:
                raise ValueError(f"restricted_protocol: category {category!r} is named twice")
            secrets[category] = (key, value)
    return secrets


def headers_for(category: str, text: str | None) -> Headers:
    """Return the headers for calls of a category where the server has these restrictions. Raises ValueError."""
    secret = read_restrictions(split_lines(text or "")).get(category)
    return () if secret is None else ((HEADER_PREFIX + secret[0], secret[1]),)


def how_to_mend(category: str) -> str:
    """Return the remedy to print after a refusal."""
    return (
        f"give --restricted-protocol {category}:KEY=VALUE, or the same in FOREBAY_RESTRICTED_PROTOCOL, "
        "as the server has it"
    )
