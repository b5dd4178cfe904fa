"""The engine process's end of a link as a test wants it: it reads records, and answers what the test says.

Over a real pair of sockets and a real memory file, so that the front end's side runs as it is.
"""

import os
import socket

import numpy as np

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.arrays_share import ArraysShare
from forebay_server.service.group.engine_link import EngineLink
from forebay_server.service.group.front_end_counts import FrontEndCounts
from forebay_server.service.group.group_permits import GroupPermits
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import ArraysLimits, layout_of
from forebay_server.service.group.messages import Published
from forebay_server.service.group.outputs_area import OutputsArea
from forebay_server.service.group.remote_version import RemoteVersion
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.request import Timeline
from forebay_server.service.results.finisher import ResultFinisher
from forebay_server.service.worker_pool import WorkerPool

ROW_NS = 1_000
U8, F32 = np.dtype(np.uint8), np.dtype(np.float32)
FIXED = EngineSpecs(
    (TensorSpec("pixels", U8, (100,)), TensorSpec("scale", F32, (1,))),
    (TensorSpec("same", U8, (10, 10)), TensorSpec("more", F32, (3,))),
    max_batch_size=8,
)
VARYING = EngineSpecs((TensorSpec("words", U8, (-1,)),), (TensorSpec("same", U8, (-1,)),), max_batch_size=4)


class ScriptedEngine:
    """Both ends of one link: `link` and `version` are real, this object is the engine process.

    Args:
        beside: another one that runs the same version, or True for the first of several.
    """

    def __init__(self, loop, clock, *, permits=8, front_ends=2, front_end=0, specs=FIXED, beside=None, files=None):
        self.front_end = front_end
        limits = ArraysLimits(1 << 20, 1 << 22)
        self.layout = layout_of(
            specs, front_ends, permits, rows_bytes=front_ends * (64 << 10), arrays=limits, files=files
        )
        self.file = MemoryFile.create("version", self.layout.file_bytes)
        VersionHeader(self.file.memory, front_ends).write_row(ROW_NS)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(0)
        self.lost = []
        self.unused = []
        self.sink = LoopSink(loop)
        self.fatal = []
        self.pool = WorkerPool(1, self.fatal.append)
        self.outputs = OutputsArea(self.layout)
        self.share = ArraysShare(self.file.memory, self.layout, specs, front_end, self.outputs)
        self.repeats = 1
        self.returned = []  # parts of the outputs area
        self.link = EngineLink(theirs, self.sink, clock, lambda: self.lost.append(True), self.pool.submit_result)
        self.counts = PermitCounts(memoryview(bytearray(PermitCounts.BYTES)), front_ends)
        slots = self.layout.slots or permits
        self.permits = GroupPermits(self.counts, front_end, front_ends, permits, slots, clock)
        if isinstance(beside, ScriptedEngine):
            self.permits = beside.permits
        description = ModelDescription("model", "simulated", specs.max_batch_size, specs)
        self.version = RemoteVersion(
            Published(7, "model", "1", description, self.layout),
            MemoryFile.attach(os.dup(self.file.fd)),
            front_end,
            self.link,
            self.permits,
            ResultFinisher(None, None, self.sink),
            FrontEndCounts(7, clock),
            requests=None,
            unbound_bytes=1 << 20,
            on_unused=self.unused.append,
            is_one_of_several=beside is not None,
        )
        self.datagrams = []
        self.records = []  # by name, in the order in which they came
        self.streams = {}  # numbers that are open, and their records
        self.requests = {}  # not answered, by token

    def read(self):
        """Take in the datagrams that have come; return their number."""
        count = 0
        while True:
            try:
                data = self.socket.recv(wire.MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return count
            assert data, "the other end is closed"
            count += 1
            self.datagrams.append(data)
            for record in wire.unpack(data):
                self._take(record)

    def _take(self, record):
        kind, found = record[0], wire.fields(record)
        self.records.append((kind, found))
        if kind == wire.OPEN_STREAM:
            assert found.stream not in self.streams
            self.streams[found.stream] = record
        elif kind == wire.CLOSE_STREAM:
            del self.streams[found.stream]
        elif kind == wire.REQUEST:
            assert found.stream in self.streams
            assert found.token not in self.requests
            self.requests[found.token] = found
        elif kind == wire.RETURN:
            self.returned.append(found.input_offset)
            self.share.give_back(found.input_offset)

    def inputs(self, found):
        """The inputs of a request, from the shared memory."""
        rows, places = found.rows, self.layout.input_places(found.rows)
        return [
            bytes(self.file.memory[found.input_offset + place :][: nbytes * rows])
            for place, nbytes in zip(places, self.layout.input_row_bytes, strict=True)
        ]

    def write_outputs(self, found, value):
        """Fill the outputs of a request with one value."""
        places = self.layout.output_places(found.rows)
        for place, nbytes in zip(places, self.layout.output_row_bytes, strict=True):
            start = found.output_offset + place
            self.file.memory[start : start + nbytes * found.rows] = bytes([value]) * nbytes * found.rows

    def answer(self, tokens, *, batch_size=4, times=None, before_sending=lambda: None):
        """Answer executed requests in one datagram, each with its token as the value of all outputs."""
        records = []
        for token in tokens:
            found = self.requests.pop(token)
            times, offset = times or Timeline(formed_ns=1, readable_ns=2), 0
            if self.layout.slots:
                self.write_outputs(found, token % 251)
            else:
                offset = self._write_arrays(found)
            records.append(wire.pack_answer(token, batch_size, times, offset))
        before_sending()
        for datagram in wire.datagrams(records):
            self.socket.send(datagram)

    def _write_arrays(self, found):
        """Answer with twice the inputs, `repeats` times behind each other; where they are."""
        place = self.share.place(found.input_offset, found.output_offset)
        outputs = [np.concatenate([2 * array] * self.repeats, axis=1) for array in self.share.inputs(place)]
        return self.share.write(place, outputs)

    def fail(self, tokens, error):
        """Answer requests with one error."""
        for token in tokens:
            del self.requests[token]
        records = [wire.pack_answer(token, 0, Timeline(readable_ns=5)) for token in tokens]
        for datagram in wire.error_datagrams(error, records):
            self.socket.send(datagram)

    def close(self):
        self.link.close()
        self.socket.close()
        self.pool.close()
        assert not self.fatal
        self.share.close()
        self.version.close()
        self.file.close()
