"""Port and unix socket are looked at before models take their time to load.

Blocks: while a name is looked up. Faults that come later are found by the listener.
"""

from pathlib import Path

from forebay_server.service.frontend.binding import AddressError, try_port, why_not
from forebay_server.service.frontend.unix_socket import SocketPathError, socket_place
from forebay_server.service.settings import ServeSettings


def check_port(settings: ServeSettings) -> None:
    """Raise AddressError if the port cannot be listened on."""
    host, _, port = settings.address.rpartition(":")
    try:
        try_port(host, int(port), is_shared=settings.share_port)
    except OSError as error:
        raise AddressError(f"cannot listen on {settings.address}: {why_not(error)}") from None


def check_unix_socket(path: Path | None) -> None:
    """Raise AddressError if a unix socket is wanted and cannot be made there."""
    if path is None:
        return
    try:
        with socket_place(path):
            pass
    except SocketPathError as error:
        raise AddressError(str(error)) from None
