"""A network camera that speaks RTSP (RFC 2326) with RTP in the same connection (RFC 6184), in a thread.

Each connection plays the units of one showing and is closed, as if the camera lost its power. After the last showing
the camera is gone: nothing listens any more.
"""

import base64
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

CLOCK_RATE = 90_000
FRAME_TICKS = CLOCK_RATE // 25
MOST_PAYLOAD = 1400
RTP_TYPE = 96
HANG_GUARD_S = 30.0


def nals_of(unit: bytes) -> list[bytes]:
    """Return the NAL units of an access unit in Annex B form."""
    return [part.strip(b"\0") for part in unit.split(b"\0\0\1") if part.strip(b"\0")]


class RtspCamera:
    """Use it in `with`.

    Args:
        showings: for each connection its access units of H.264.
        pace: called before each frame; it may wait.
        repeats_sets: the parameter sets come before each slice of a keyframe, against the standard, as GStreamer's
            rtph264pay with config-interval=-1 sends them.
    """

    def __init__(
        self,
        showings: Sequence[Sequence[bytes]],
        pace: Callable[[], object] = lambda: None,
        *,
        repeats_sets: bool = False,
    ) -> None:
        self._showings = list(showings)
        self._pace = pace
        self._repeats_sets = repeats_sets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(HANG_GUARD_S)
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/camera"
        self.played = 0
        self._thread = threading.Thread(target=self._run, name="rtsp camera")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while self._showings:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the test is over
                return
            with connection:
                connection.settimeout(HANG_GUARD_S)
                try:
                    if self._serve(connection):
                        self._showings.pop(0)
                        self.played += 1
                except OSError:
                    continue  # the client has left
        self._listener.close()

    def _serve(self, connection: socket.socket) -> bool:
        """Answer requests until PLAY, then play a showing; return whether it came so far."""
        requests = connection.makefile("rb")
        while head := requests.readline().decode():
            method = head.split()[0]
            headers: dict[str, str] = {}
            while line := requests.readline().strip().decode():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            body = b""
            more: list[str] = []
            if method == "DESCRIBE":
                body, more = self._sdp(), ["Content-Type: application/sdp"]
            elif method == "SETUP":
                more = ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "OPTIONS":
                more = ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"]
            lines = ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', '0')}", *more, f"Content-Length: {len(body)}"]
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            if method == "PLAY":
                self._play(connection, self._showings[0])
                return True
        return False

    def _sets(self) -> list[bytes]:
        return [nal for nal in nals_of(self._showings[0][0]) if nal[0] & 31 in {7, 8}]

    def _sdp(self) -> bytes:
        sprop = ",".join(base64.b64encode(nal).decode() for nal in self._sets())
        lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "t=0 0", f"m=video 0 RTP/AVP {RTP_TYPE}"]
        lines += ["c=IN IP4 127.0.0.1", f"a=rtpmap:{RTP_TYPE} H264/{CLOCK_RATE}"]
        lines += [f"a=fmtp:{RTP_TYPE} packetization-mode=1;sprop-parameter-sets={sprop}", "a=control:track1", ""]
        return "\r\n".join(lines).encode()

    def _play(self, connection: socket.socket, units: Sequence[bytes]) -> None:
        number = 0
        for index, unit in enumerate(units):
            self._pace()
            payloads = [part for nal in self._sent(unit) for part in _rtp_payloads(nal)]
            for position, payload in enumerate(payloads):
                is_last = position == len(payloads) - 1
                head = struct.pack(
                    ">BBHII", 0x80, RTP_TYPE | is_last << 7, number & 0xFFFF, index * FRAME_TICKS & 0xFFFFFFFF, 1
                )
                number += 1
                packet = head + payload
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)

    def _sent(self, unit: bytes) -> list[bytes]:
        """Return a unit's NAL units; parameter sets only if they are repeated: many cameras only describe them."""
        sets = self._sets() if self._repeats_sets else []
        own = [nal for nal in nals_of(unit) if nal[0] & 31 not in {7, 8, 9}]
        return [each for nal in own for each in ([*sets, nal] if nal[0] & 31 == 5 else [nal])]


def _rtp_payloads(nal: bytes) -> list[bytes]:
    """Return one NAL unit as the payload of a packet, or in fragments (FU-A)."""
    if len(nal) <= MOST_PAYLOAD:
        return [nal]
    indicator, kind, rest = nal[0] & 0xE0 | 28, nal[0] & 31, nal[1:]
    parts = [rest[start : start + MOST_PAYLOAD] for start in range(0, len(rest), MOST_PAYLOAD)]
    last = len(parts) - 1
    return [bytes([indicator, kind | (i == 0) << 7 | (i == last) << 6]) + part for i, part in enumerate(parts)]
