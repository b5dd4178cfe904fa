"""A lane whose requests lie in shared memory and come over a link, driven step by step on one thread."""

from forebay_server.service.group.link_sink import LinkSink
from forebay_server.service.group.version_memory import VersionMemory
from forebay_server.service.pipeline.builder import LaneContext, build_lane
from forebay_server.service.request import Batch
from tests.support.far_front_end import FarFrontEnd
from tests.support.lane import MAX_BATCH_SIZE, LaneDriver


class ArrivedRequests:
    """Stands for a version: requests wait here until the test forms a batch."""

    def __init__(self):
        self.requests = []
        self.cancelled = []
        self.refused = []

    def arrive_all(self, requests):
        self.requests.extend(requests)

    def cancel(self, requests):
        self.cancelled.extend(requests)

    def refuse(self, requests, error):
        self.refused += [(request, error) for request in requests]


class SharedLaneDriver(LaneDriver):
    """A lane before one front-end process: `form` has requests come over the link."""

    def __init__(self, slot_count, *options, permits=8, **keywords):
        super().__init__(slot_count, *options, **keywords)
        assert self.pipeline.close()
        self.arena.close()
        self.engine = self._open_engine()
        self.memory = VersionMemory(self.device, self.engine.specs, 2, permits, 1 << 16)
        self.far = FarFrontEnd(self.memory, front_end=1)
        self.arrived = ArrivedRequests()
        self.far.link.add_version(self.far.number, self.arrived, self.memory.shares[1])
        self.far.open_stream()
        self.sink = LinkSink()
        reader = self.memory.reader("1", self.sink.post)
        context = LaneContext(self.clock, "1", self.sink.post, self.fatal.append, slot_count, reader=reader)
        self.pipeline = build_lane(0, "lane", self.device, self.engine, context)
        self.pipeline.warm_up((1, MAX_BATCH_SIZE))
        self.sent = {}

    def form(self, rows=2):
        """Reserve a slot and form a batch of `rows` new requests; None if there is no free slot."""
        index = self.pipeline.try_reserve()
        if index is None:
            return None
        self.come(*[[self.next_value()] for _ in range(rows)])
        return self.batch_of(self.arrived.requests, index)

    def batch_of(self, requests, index=None):
        """Form a batch of requests that have come."""
        index = self.pipeline.try_reserve() if index is None else index
        rows = sum(request.size for request in requests)
        batch = Batch(next(self._ids), 0, index, list(requests), rows, rows, self.clock.now_ns())
        self.arrived.requests = [request for request in self.arrived.requests if request not in requests]
        self.waiting["h2d"].append(batch)
        return batch

    def next_value(self):
        return next(self._ids) % 255 + 1

    def come(self, *requests, **options):
        """Have requests come over the link: for each the values of its rows."""
        made = [self.far.request(*values, **options) for values in requests]
        for (token, _), values in zip(made, requests, strict=True):
            self.sent[token] = values
        self.far.send([record for _, record in made])
        self.receive()
        return [token for token, _ in made]

    def receive(self):
        """Take in the records that were sent, as the links' thread does."""
        while True:
            try:
                datagram = self.far.link.socket.recv(1 << 16)
            except BlockingIOError:
                return
            arrived = {}
            self.far.link.take(memoryview(datagram), arrived)
            for version, requests in arrived.items():
                version.arrive_all(requests)
            if (pinning := self.memory.shares[1].rows._pinning) is not None:
                pinning.join()  # requests of several rows have come with it

    def step(self, stage):
        batch = super().step(stage)
        self.far.read()
        return batch

    def check_answers(self):
        """Every request was answered with its own rows."""
        assert not self.far.open
        assert not self.far.errors
        for token, (_, (output,)) in self.far.answers.items():
            assert [set(row.tolist()) for row in output] == [{value} for value in self.sent[token]]

    def close(self):
        assert self.pipeline.close()
        self.memory.close()
        self.hang_up()
        self.device.close()

    def hang_up(self):
        """Close both ends of the link. Idempotent."""
        self.far.link.die()
        self.far.close()
