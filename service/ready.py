"""The line that says that the server takes streams."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ready:
    """See the module; also the content of the ready file."""

    address: str
    uds: str | None
    admin_address: str | None
    pid: int
    models: dict[str, list[str]]

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"event": "ready"} | asdict(self))


def write_whole(path: Path, line: str) -> None:
    """Write a file that a reader sees whole or not at all. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(line + "\n")
    partial.replace(path)
