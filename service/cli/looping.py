"""A source that begins again at its end, for ever."""

from collections.abc import Callable
from typing import Any

from forebay_server.service.cli.video import Source


class Looping(Source):
    """A file or folder that is opened again when it ends.

    Args:
        source: open now.
        reopen: opens it again. Raises SourceError.
    """

    def __init__(self, source: Source, reopen: Callable[[], Source]) -> None:
        super().__init__(source.info)
        self.has_mixed_sizes, self.remark = source.has_mixed_sizes, source.remark
        self._source = source
        self._reopen = reopen

    @property
    def encoding(self) -> Any:  # noqa: ANN401
        """Of a source that has an encoding."""
        return getattr(self._source, "encoding", None)

    @property
    def parameter_sets(self) -> bytes:
        """Of a source that has packets."""
        return getattr(self._source, "parameter_sets", b"")

    @property
    def shortfall(self) -> str:
        """Empty: each end is followed by a beginning."""
        return ""

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _read(self) -> Any:  # noqa: ANN401 - as the source
        frame = self._source.read()
        if frame is None and self._source.read_frames:
            self._source.close()
            self._source = self._reopen()
            frame = self._source.read()
        self.skipped = self._source.skipped
        return frame
