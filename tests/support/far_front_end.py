"""A front-end process's end of a data socket as a test wants it, before the engine process's own parts.

It sends descriptors and reads answers when the test says so, and keeps account: each token is answered once, and a slot
belongs to one request at a time. `tests.support.scripted_engine` is the other end.
"""

import os
import pickle
import socket

import numpy as np

from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.front_end_link import FrontEndLink
from forebay_server.service.request import Delivery


class FarFrontEnd:
    """One front-end process and one version.

    Without a `connection` it has the engine process's end as well, `link`, and `ended` what the link has told.

    Attributes:
        open: tokens that wait for their answers, with the slot of each; None for a request without one.
        answers: of executed requests, by token: batch size and outputs.
        errors: by token.
        datagrams: that have been read.
    """

    def __init__(self, memory, *, front_end=0, most_requests=64, number=1, connection=None):
        self.ended = []
        if connection is None:
            ours, connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.link = FrontEndLink(front_end, ours, most_requests, self.ended.append)
        self.socket = connection
        self.socket.setblocking(False)
        self.front_end = front_end
        self.number = number
        self.memory = memory  # has `layout` and `memory`
        self.layout = memory.layout
        self.open = {}
        self.files = {}
        self.answers = {}
        self.errors = {}
        self.datagrams = 0
        self._tokens = 0
        self.free = [self.layout.slot_offset(front_end, slot) for slot in range(self.layout.slots)]

    @property
    def bytes(self):
        return np.frombuffer(self.memory.memory, np.uint8)

    def open_stream(self, number=1, delivery=Delivery.EVERY, *, is_ordered=True, weight=1):
        self.send([wire.pack_open_stream(number, delivery, is_ordered=is_ordered, weight=weight)])

    def request(self, *values, stream=1, deadline_ns=wire.NONE, arrival_ns=0, at=None):
        """The record of a request whose rows are full of `values`, one a row; returns its token and the record."""
        self._tokens += 1
        rows = len(values)
        place = at if at is not None else self.free.pop() if rows == 1 else self.layout.rows_offset(self.front_end)
        for row, value in enumerate(values):
            for start, row_bytes in zip(self.layout.input_places(rows), self.layout.input_row_bytes, strict=True):
                self.bytes[place + start + row * row_bytes :][:row_bytes] = value
        outputs = place + self.layout.inputs_bytes(rows)
        self.open[self._tokens] = (place, outputs, rows)
        return self._tokens, wire.pack_request(
            self._tokens, self.number, stream, rows, 1, place, outputs, deadline_ns, arrival_ns
        )

    def request_of_file(self, arrays, stream=1, key=b"key"):
        """The record of a request whose inputs are in a file; returns its token and the record."""
        self._tokens += 1
        fd = os.memfd_create("request")
        os.write(fd, key + pickle.dumps(arrays))
        self.files[self._tokens] = fd
        self.open[self._tokens] = None
        record = wire.pack_request(
            self._tokens, self.number, stream, 1, 1, 0, 0, wire.NONE, 0, nbytes=len(key), has_file=True
        )
        return self._tokens, record

    def send(self, records, files=()):
        """Send one datagram."""
        socket.send_fds(self.socket, [b"".join(records)], files)

    def read(self):
        """Take in the answers that have come; return whether the other end is open."""
        while True:
            try:
                data = self.socket.recv(wire.MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.datagrams += 1
            error, answers = wire.unpack_answers(data)
            for answer in answers:
                self._take(answer[2], answer[1], error)

    def _take(self, token, batch_size, error):
        place = self.open.pop(token)  # raises KeyError for an answer that is none
        if error is not None:
            self.errors[token] = error
        elif place is not None:
            self.answers[token] = (batch_size, self._outputs(*place[1:]))
        else:
            fd = self.files[token]
            outputs = pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))  # noqa: S301 - of this process
            self.answers[token] = (batch_size, outputs)
        if place is not None and place[2] == 1:
            self.free.append(place[0])
        if token in self.files:
            os.close(self.files.pop(token))

    def _outputs(self, start, rows):
        layout = self.layout
        pieces = zip(
            layout.output_places(rows), layout.output_row_bytes, layout.output_dtypes, layout.output_shapes, strict=True
        )
        return [
            self.bytes[start + place :][: rows * nbytes].view(dtype).reshape(rows, *shape).copy()
            for place, nbytes, dtype, shape in pieces
        ]

    def close(self):
        self.socket.close()
        for fd in self.files.values():
            os.close(fd)
        self.files.clear()
