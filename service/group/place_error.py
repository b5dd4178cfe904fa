"""The error of a request whose memory is not its front-end process's."""


class PlaceError(ValueError):
    """A request names memory that is not its front-end process's: a bug there."""
