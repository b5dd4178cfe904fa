"""Numbers of messages in reception."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReceptionNumbers:
    """Messages that are being received.

    Attributes:
        connections: that are open, those of the unix socket left out.
        held_bytes: of messages that have begun and not ended.
        waiting: single requests that are not read yet, since there is no room.
        ended: calls that were ended, by why: `late`, `full`; `cut`: connections.
    """

    connections: int = 0
    held_bytes: int = 0
    waiting: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
