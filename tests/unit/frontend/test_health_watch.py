"""A watch that is writing when a drain begins still sends NOT_SERVING before it ends."""

from forebay.wire import health_pb2
from forebay_server.service.frontend.health import HealthServicer
from tests.support.loops import on_loop

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class DrainingContext:
    """A call whose first write lasts until the server drains."""

    def __init__(self, servicer):
        self.told = []
        self._servicer = servicer

    async def write(self, message):
        self.told.append(health_pb2.HealthCheckResponse.FromString(message).status)
        self._servicer.drain()


@on_loop
async def test_the_last_status_is_told_when_the_drain_begins_during_a_write():
    servicer = HealthServicer()
    servicer.set("m", is_serving=True)
    context = DrainingContext(servicer)
    await servicer.watch(health_pb2.HealthCheckRequest(service="m").SerializeToString(), context)
    assert context.told == [health_pb2.HealthCheckResponse.SERVING, NOT_SERVING]
