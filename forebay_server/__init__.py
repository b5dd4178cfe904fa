"""Forebay's server: all that an installed environment has of it lives below this one name.

In the repository the folders lie beside this one, and links lead to them; a wheel holds them here (ADR 0100). A tree
that was copied without its links works as well.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent
if not (_FOLDER / "service").is_dir():  # no links
    __path__.append(str(_FOLDER.parent))
