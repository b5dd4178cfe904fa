"""When polling tries a model again that could not be loaded and has not changed since.

What a model needs besides its files may come later: memory, a GPU, a file system. So it is tried again after 1, 2, 4
looks and so on, at last at every 64th. Counted in looks, not in seconds, so that `repository_poll_s` scales it.

Owner: each name belongs to the one thread that is at work on its model.
"""

MOST_LOOKS = 64  # a quarter of an hour with looks every 15 s


class Retries:
    """See the module."""

    def __init__(self) -> None:
        self._waits: dict[str, int] = {}  # by model: looks from one try to the next
        self._left: dict[str, int] = {}  # until the next try

    def is_due(self, name: str) -> bool:
        """Return whether this look should try the model again. To be asked once a look."""
        if name not in self._left:
            return False
        self._left[name] -= 1
        return self._left[name] <= 0

    def note_failure(self, name: str) -> None:
        """Wait twice as long as before for the next try."""
        self._waits[name] = min(2 * self._waits.get(name, 0) or 1, MOST_LOOKS)
        self._left[name] = self._waits[name]

    def forget(self, name: str) -> None:
        """Begin anew: the model has been loaded, has changed, or has gone."""
        self._waits.pop(name, None)
        self._left.pop(name, None)
