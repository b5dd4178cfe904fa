"""A collector of OpenTelemetry traces, as a separate process: `python -m tests.support.collector`.

It speaks OTLP over gRPC with the messages of opentelemetry-proto, prints its port, and then one JSON line per span.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT


def tell(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


class Collector(pb_grpc.TraceServiceServicer):
    async def Export(self, request, context):  # noqa: N802 - the protocol's name
        for group in request.resource_spans:
            resource = {each.key: value_of(each.value) for each in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    tell(line_of(span, resource))
        return pb.ExportTraceServiceResponse()


def line_of(span, resource):
    return {
        "name": span.name,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "links": [link.span_id.hex() for link in span.links],
        "attributes": {each.key: value_of(each.value) for each in span.attributes},
        "resource": resource,
    }


async def collect():
    server = grpc.aio.server()
    pb_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tell({"port": port})
    await server.wait_for_termination()


class RunningCollector:
    """A collector as its test sees it. `spans` grows as `until` reads."""

    def __init__(self, process, port):
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        self.spans = []
        self._process = process

    def named(self, name):
        return [span for span in self.spans if span["name"] == name]

    async def until(self, condition):
        """Read spans until the condition holds."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not condition():
                self.spans.append(json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def collector():
    """Run a collector."""
    command = (sys.executable, "-m", "tests.support.collector")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        port = json.loads(await asyncio.wait_for(process.stdout.readline(), HANG_GUARD_S))["port"]
        yield RunningCollector(process, port)
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(collect())
