"""Changes to a model that are made in memory when it is opened; its file stays as it is. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModelChanges:
    """See the module.

    Attributes:
        content: to be opened instead of the file, beside which weights in other files are still found; None: the file.
        dimensions: the number of a dimension that varies, by its name in the file.
    """

    content: bytes | None = field(default=None, repr=False)
    dimensions: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return self.content is not None or bool(self.dimensions)
