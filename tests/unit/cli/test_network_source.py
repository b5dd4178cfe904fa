"""A network stream that cannot be opened: the message says what to look at."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from forebay_server.service.cli.packets import open_packets
from forebay_server.service.cli.video import SourceError

pytest.importorskip("av")


@contextlib.contextmanager
def camera_that_answers(status: str) -> Iterator[str]:
    """Answer the requests of one RTSP connection with a status; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                for line in stream:
                    found = re.match(rb"CSeq: (\d+)", line)
                    if found:
                        stream.write(b"RTSP/1.0 %s\r\nCSeq: %s\r\n\r\n" % (status.encode(), found[1]))
                        stream.flush()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"rtsp://anna:secret@127.0.0.1:{listener.getsockname()[1]}/gate"
        thread.join()


def test_nothing_listens_there():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # so that no other program listens there
        port = bound.getsockname()[1]
        with pytest.raises(SourceError, match=r"/gate cannot be opened: nothing listens there: are the address"):
            open_packets(f"rtsp://127.0.0.1:{port}/gate")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401 Unauthorized", "the user or the password is wrong"),
        ("403 Forbidden", "the user or the password is wrong"),
        ("404 Not Found", "is the path right"),
        ("500 Internal Server Error", "is it there, and are the user and password right"),
    ],
)
def test_the_camera_refuses(status, words):
    with camera_that_answers(status) as address, pytest.raises(SourceError, match=words) as caught:
        open_packets(address)
    assert "secret" not in str(caught.value)
