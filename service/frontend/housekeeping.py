"""What is done about open streams from time to time: heartbeats, lifetimes, clients that say or take nothing.

Owner: the event loop's thread.
"""

import asyncio

import structlog

from forebay.wire import frames_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.frontend.frames.servicer import FramesServicer, FrameStream
from forebay_server.service.frontend.open_inference.servicer import InferenceServicer
from forebay_server.service.settings import ServeSettings

log = structlog.get_logger(__name__)

INTERVAL_S = 0.5  # heartbeats and lifetimes need no more precision


class Housekeeping:
    """See the module.

    Args:
        frames: has the streams of frames.
        inference: has the streams of the Open Inference Protocol.
        clock: time.
        settings: limits.
    """

    def __init__(
        self, frames: FramesServicer, inference: InferenceServicer, clock: Clock, settings: ServeSettings
    ) -> None:
        self._frames = frames
        self._inference = inference
        self._clock = clock
        self._settings = settings

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Look at all streams again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                self._look(self._clock.now_ns())
            except Exception:
                log.exception("streams were not looked after")  # the next time they are

    def _look(self, now_ns: int) -> None:
        deadline_s = self._settings.write_deadline_s
        for reader in tuple(self._inference.streams):
            if reader.outgoing.is_stuck(now_ns, deadline_s):
                reader.give_up()
        for stream in tuple(self._frames.streams):
            if stream.outgoing.is_stuck(now_ns, deadline_s):
                stream.give_up()
            elif stream.session is not None:
                self._look_after(stream, now_ns)
            elif now_ns - stream.opened_ns > self._frames.open_deadline_s * 1e9:
                stream.stop_reading()

    def _look_after(self, stream: FrameStream, now_ns: int) -> None:
        """See to the lifetime and the heartbeat of one open stream."""
        if stream.leave_by_ns is not None and now_ns >= stream.leave_by_ns:
            stream.stop_reading()
        elif 0 < stream.lifetime_s < (now_ns - stream.opened_ns) / 1e9:
            grace_ms = int(self._settings.drain_grace_s * 1000)
            stream.ask_to_leave(pb.Reconnect.REASON_REBALANCE, grace_ms, now_ns)
        silence_s = (now_ns - stream.outgoing.last_sent_ns) / 1e9
        if 0 < self._settings.heartbeat_interval_s <= silence_s + INTERVAL_S:
            stream.send_heartbeat()
