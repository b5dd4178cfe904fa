"""One stream of the load: its queue and the client's policy, its sender, its receivers, its reconnects.

A stream outlives its connections. Frame numbers (`seq`) rise over its whole life, so an answer always finds its
frame; a frame belongs to the connection it was written to and is lost with it. Owner: the event loop.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from forebay_server.loadtest.arrivals import StreamPlan
from forebay_server.loadtest.clock import Clock
from forebay_server.loadtest.errors import CannotConnectError, GarbageError, StreamBrokenError
from forebay_server.loadtest.frames import FrameSource
from forebay_server.loadtest.recorder import Recorder
from forebay_server.loadtest.scenario import Policy, Scenario
from forebay_server.loadtest.target import Moved, Target, TargetInfo, TargetStream

_RECONNECT_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # the last one repeats


@dataclass(slots=True)
class _Sent:
    row: int
    capture_time_us: int


@dataclass(slots=True)
class _Connection:
    stream: TargetStream
    sent: dict[int, _Sent] = field(default_factory=dict)  # by seq: written to this connection, no answer yet
    is_over: bool = False  # nothing more can be written to it
    is_broken: bool = False  # it ended with an error
    is_moved: bool = False  # the server asked for a new one


class StreamDriver:
    """See the module."""

    def __init__(
        self, stream_plan: StreamPlan, scenario: Scenario, target: Target, source: FrameSource, clock: Clock
    ) -> None:
        self._plan = stream_plan
        self._scenario = scenario
        self._target = target
        self._source = source
        self._clock = clock
        self._recorder: Recorder | None = None
        self._start_ns = 0
        self._queue: deque[tuple[int, int]] = deque()  # (row, frame)
        self._wake = asyncio.Event()
        self._is_writing = False
        self._is_ending = False
        self._is_reconnecting = False
        self._is_draining = False
        self._next_seq = 1
        self._frames_offered = 0
        self._connection: _Connection | None = None
        self._connections: list[_Connection] = []
        self._receivers: set[asyncio.Task[None]] = set()
        self.last_error = ""

    @property
    def connect_ns(self) -> int:
        """When to connect, relative to the start."""
        return self._plan.connect_ns

    @property
    def is_open(self) -> bool:
        """Whether frames can be written now."""
        return self._connection is not None and not self._connection.is_over

    @property
    def is_well(self) -> bool:
        """Whether frames can be written now, or all were and their answers are awaited."""
        return self.is_open or self._is_draining

    @property
    def is_reconnecting(self) -> bool:
        """Whether there is no connection and the stream tries to open another."""
        return self._is_reconnecting

    @property
    def info(self) -> TargetInfo | None:
        """The server's grant; None before the first connection."""
        return self._connection.stream.info if self._connection else None

    async def connect(self) -> None:
        """Open a connection. Raises CannotConnectError."""
        resume_from = self._next_seq if self._next_seq > 1 else None
        stream = await self._target.open(f"load-{self._plan.stream}", resume_from)
        self._connection = _Connection(stream)
        self._connections.append(self._connection)

    def offer(self, intended_ns: int, frame: int) -> None:
        """Record that a frame is due now and queue it; never blocks."""
        recorder = self._recorder
        if recorder is None or self._is_ending:
            return
        was_idle = self.is_open and not self._queue and not self._is_writing
        capture_ns = int(self._plan.capture_ns[frame])
        row = recorder.offer(self._plan.stream, intended_ns, capture_ns, self._clock.now_ns(), was_idle=was_idle)
        self._queue.append((row, frame))
        if self._scenario.policy is Policy.DROP_OLDEST and len(self._queue) > self._scenario.queue_depth:
            dropped, _ = self._queue.popleft()
            recorder.drop(dropped)
        self._wake.set()

    def end_offering(self) -> None:
        """Send what is queued, half-close, and let `run` return when all is answered."""
        self._is_ending = True
        self._wake.set()

    def cancel(self) -> None:
        """Give up all connections at once."""
        for connection in self._connections:
            connection.stream.cancel()

    async def run(self, recorder: Recorder, start_ns: int) -> None:
        """Send and receive until the end."""
        self._recorder = recorder
        self._start_ns = start_ns
        await asyncio.sleep(max(0.0, (start_ns + self.connect_ns - self._clock.now_ns()) / 1e9))
        try:
            while not self._is_ending or self._queue:
                if not self.is_open and not await self._reconnect():
                    break
                await self._use_connection(recorder)
            self._is_draining = True
            await asyncio.gather(*self._receivers)
        finally:
            for task in self._receivers:
                task.cancel()
            await asyncio.gather(*self._receivers, return_exceptions=True)

    async def _reconnect(self) -> bool:
        """Try until a connection is open; False when the run ends first."""
        self._is_reconnecting = True
        try:
            return await self._try_to_connect()
        finally:
            self._is_reconnecting = False

    async def _try_to_connect(self) -> bool:
        attempt = 0
        while True:
            await asyncio.sleep(_RECONNECT_PAUSES_S[min(attempt, len(_RECONNECT_PAUSES_S) - 1)])
            if self._is_ending and not self._queue:
                return False
            try:
                await self.connect()
            except CannotConnectError as error:
                self.last_error = str(error)
                attempt += 1
            else:
                return True

    async def _use_connection(self, recorder: Recorder) -> None:
        """Write frames to the current connection until it breaks, moves, or no frame is left to send."""
        connection = self._connection
        if connection is None:
            return
        receiver = asyncio.create_task(self._receive(connection, recorder))
        self._receivers.add(receiver)
        receiver.add_done_callback(self._receivers.discard)
        try:
            while not connection.is_over and not connection.is_moved:
                if self._may_send(connection):
                    await self._send_next(connection, recorder)
                elif self._is_ending:
                    break
                else:
                    self._wake.clear()
                    await self._wake.wait()
            if not connection.is_over:
                await connection.stream.finish()
        except StreamBrokenError as error:
            self._note_broken(connection, str(error), recorder)
        connection.is_over = True

    def _may_send(self, connection: _Connection) -> bool:
        if self._scenario.is_open_loop:
            return bool(self._queue)
        return not self._is_ending and len(connection.sent) < self._scenario.concurrency

    async def _send_next(self, connection: _Connection, recorder: Recorder) -> None:
        if self._scenario.is_open_loop:
            row, frame = self._queue.popleft()
            capture_ns = int(self._plan.capture_ns[frame])
            payload = self._payload(frame)
            now_ns = self._clock.now_ns()
        else:
            payload = self._source.payload(self._frames_offered + self._source.first_index(self._plan.stream))
            self._frames_offered += 1
            now_ns = self._clock.now_ns()
            capture_ns = now_ns - self._start_ns
            row = recorder.offer(self._plan.stream, capture_ns, capture_ns, now_ns, was_idle=True)
        capture_time_us = (self._start_ns + capture_ns) // 1000
        seq = self._next_seq
        self._next_seq += 1
        connection.sent[seq] = _Sent(row, capture_time_us)
        recorder.sent(row, now_ns, len(payload))
        self._is_writing = True
        try:
            await connection.stream.send(seq, capture_time_us, payload)
        finally:
            self._is_writing = False

    def _payload(self, frame: int) -> bytes:
        index = frame + self._source.first_index(self._plan.stream)
        return self._source.payload(
            index, scale=float(self._plan.scale[frame]), size_bytes=int(self._plan.size_bytes[frame])
        )

    async def _receive(self, connection: _Connection, recorder: Recorder) -> None:
        try:
            while True:
                try:
                    answer = await connection.stream.receive()
                except GarbageError as error:
                    recorder.counters.garbage += 1
                    recorder.counters.first_error = recorder.counters.first_error or str(error)
                    continue
                if answer is None:
                    break
                if isinstance(answer, Moved):
                    recorder.counters.reconnects += 1
                    connection.is_moved = True
                    self._wake.set()
                    continue
                now_ns = self._clock.now_ns()
                sent = connection.sent.pop(answer.seq, None)
                if sent is None:
                    self._count_unmatched(answer.seq, recorder)
                    continue
                recorder.answered(sent.row, now_ns, answer, sent.capture_time_us)
                if not self._scenario.is_open_loop:
                    self._wake.set()
        except StreamBrokenError as error:
            self._note_broken(connection, str(error), recorder)
        finally:
            connection.is_over = True
            self._wake.set()

    def _count_unmatched(self, seq: int, recorder: Recorder) -> None:
        if 0 < seq < self._next_seq:
            recorder.counters.duplicates += 1
        else:
            recorder.counters.strangers += 1

    def _note_broken(self, connection: _Connection, error: str, recorder: Recorder) -> None:
        if not connection.is_broken:
            connection.is_broken = True
            recorder.counters.broken_streams += 1
            recorder.counters.first_error = recorder.counters.first_error or error
            connection.stream.cancel()
        connection.is_over = True
        self.last_error = error
