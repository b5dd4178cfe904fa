"""The public part of the reason why a model could not be loaded."""

import re
from pathlib import Path

import structlog

from forebay_server.engines.errors import EngineError
from forebay_server.service.models.repository import RepositoryError

log = structlog.get_logger(__name__)

MOST_WORDS = 2000  # characters of a reason: it travels in headers, of which gRPC takes 8 KiB, percent-encoded
_FOLDERS = re.compile(r"""(?<=['"])/(?:[^/'"\n]*/)*|(?<![\w.])/(?:(?:[^/:'"\n]|:(?!\s))*/)*""")
"""Matches up to the closing quote, or else to the end of the clause: names of folders may have spaces."""


def public_words(error: Exception, name: str, root: Path | None) -> str:
    """Return the message of an error without the folders of this machine, which some libraries include."""
    if not isinstance(error, RepositoryError | EngineError):
        log.error("model not loaded", model=name, exc_info=error)  # a bug here or in a library
        return "internal error; the server's log has the details"
    text = str(error)
    if root is not None:
        text = text.replace(f"{root}/", "").replace(str(root), "the repository")
    return _FOLDERS.sub("", text)[:MOST_WORDS]
