"""A front-end process's end of a data socket as a test wants it, before the engine process's own parts.

It sends descriptors and reads answers when the test says so, and keeps account: each token is answered once, and a slot
belongs to one request at a time. `tests.support.scripted_engine` is the other end.
"""

import socket

import numpy as np

from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.front_end_link import FrontEndLink
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.group.packed_arrays import pack, unpack
from forebay_server.service.request import Delivery


class FarFrontEnd:
    """One front-end process and one version.

    Without a `connection` it has the engine process's end as well, `link`, and `ended` what the link has told.

    Attributes:
        open: tokens that wait for their answers, with the place of each.
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
        self.answers = {}
        self.errors = {}
        self.datagrams = 0
        self.offsets = {}  # of outputs in the outputs area, by token
        self._tokens = 0
        self._pages = 0
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

    def request_of_arrays(self, arrays, specs, stream=1, pages=1):
        """The record of a request whose shapes vary; returns its token and the record."""
        self._tokens += 1
        start = self.layout.rows_offset(self.front_end) + PAGE_BYTES * self._pages
        self._pages += pages
        end = start + pages * PAGE_BYTES
        pack(arrays, [spec.dtype for spec in specs.inputs]).write(self.memory.memory[start:end])
        self.specs = specs
        self.open[self._tokens] = (start, end, None)
        return self._tokens, wire.pack_request(self._tokens, self.number, stream, 1, 1, start, end, wire.NONE, 0)

    def send(self, records):
        """Send one datagram."""
        self.socket.send(b"".join(records))

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
                self._take(answer[2], answer[1], error, answer[3] * PAGE_BYTES)

    def _take(self, token, batch_size, error, offset):
        place = self.open.pop(token)  # raises KeyError for an answer that is none
        if error is not None:
            self.errors[token] = error
        elif place[2] is None:
            dtypes = [spec.dtype for spec in self.specs.outputs]
            outputs = unpack(self.memory.memory[offset or place[0] :], dtypes)
            self.answers[token] = (batch_size, [array.copy() for array in outputs])
            self.offsets[token] = offset
        else:
            self.answers[token] = (batch_size, self._outputs(*place[1:]))
        if place[2] == 1:
            self.free.append(place[0])

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
