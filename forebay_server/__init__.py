"""Forebay's server: all that an installed environment has of it lives below this one name.

In the repository the folders lie beside this one, and links lead to them; a wheel holds them here (ADR 0100). A tree
that was copied without its links works as well.
"""

import os

# os.path: every command imports this module, and pathlib would be a tenth of a health check's CPU.
_FOLDER = os.path.dirname(__file__)  # noqa: PTH120
if not os.path.isdir(os.path.join(_FOLDER, "service")):  # noqa: PTH112, PTH118 - no links
    __path__.append(os.path.dirname(_FOLDER))  # noqa: PTH120
