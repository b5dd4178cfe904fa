"""Decides when polling retries a model that could not be loaded and has not changed since.

Other needs of a model than its files may come later: memory, a GPU, a file system. So it is tried again after 1, 2, 4
scans and so on, finally at every 64th. The count is in scans, not in seconds, so that `repository_poll_s` scales it.

Owner: each name belongs to the one thread that is working on its model.
"""

MOST_LOOKS = 64  # a quarter of an hour with scans every 15 s


class Retries:
    """See the module."""

    def __init__(self) -> None:
        self._waits: dict[str, int] = {}  # by model: scans from one try to the next
        self._left: dict[str, int] = {}  # scans until the next try

    def is_due(self, name: str) -> bool:
        """Return whether this scan should try the model again. Call once per scan."""
        if name not in self._left:
            return False
        self._left[name] -= 1
        return self._left[name] <= 0

    def note_failure(self, name: str) -> None:
        """Double the number of scans until the next try."""
        self._waits[name] = min(2 * self._waits.get(name, 0) or 1, MOST_LOOKS)
        self._left[name] = self._waits[name]

    def forget(self, name: str) -> None:
        """Start over: the model was loaded, has changed, or has gone."""
        self._waits.pop(name, None)
        self._left.pop(name, None)
