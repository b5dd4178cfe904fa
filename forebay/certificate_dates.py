"""Whether a certificate is valid today, from a handshake with itself in memory: Python's ssl decodes no file.

The handshake also finds other faults that a peer would find, such as a key that is too short.
"""

import ssl
from pathlib import Path

_HANDSHAKE_STEPS = 8  # client hello, server flight, client finished, tickets; more is a loop


def date_fault(server: ssl.SSLContext, chain: Path | str) -> str:
    """Return why a certificate is not valid now, in one line; empty if it is.

    Args:
        server: has the chain and its key loaded.
        chain: the file of the chain, which the other end trusts.

    Raises:
        ssl.SSLError: a handshake with it fails for another reason.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(chain)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself: only its dates count
    try:
        _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        is_early = "not yet valid" in error.verify_message
        return f"{error.verify_message}; {'is the clock of this machine right?' if is_early else 'renew it'}"
    return ""


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Run a handshake between the two through memory. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_HANDSHAKE_STEPS):
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not ends:
            return
