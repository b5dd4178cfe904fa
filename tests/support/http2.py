"""HTTP/2 frames made by hand, so that a client can send what no library would. Source: RFC 9113, RFC 7541."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CANCEL = 8


def frame(kind, flags=0, stream=0, payload=b""):
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def field(name, value):
    """Return a header field as a literal that enters no table."""
    return b"\0" + _text(name.encode()) + _text(value.encode())


def indexed_field(name, value):
    """Return a header field as a literal that the receiver keeps in its table."""
    return b"\x40" + _text(name.encode()) + _text(value.encode())


def call(path="/forebay.v1.FrameInference/Stream", *more):
    """Return the header block of a gRPC call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(field(name, value) for name, value in fields.items()) + b"".join(more)


def message(payload, *, is_compressed=False, length=None):
    """Return a gRPC message: its flag, its length (or another one), its bytes."""
    return struct.pack(">BI", is_compressed, len(payload) if length is None else length) + payload


def _text(data):
    """Return a string in HPACK's form, without Huffman's code; its length as an integer with a prefix of seven bits."""
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, encoded = len(data) - 127, b"\x7f"
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest]) + data
