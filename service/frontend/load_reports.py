"""xds.service.orca.v3.OpenRcaService: the server's load for balancers that weigh servers by it, gRPC's and Envoy's.

A balancer asks out of band, by a call that gets a report again and again; or it reads the report that each single
request brings in its trailing metadata. Both say the same, once a second anew.

Owner: the event loop's thread.
"""

import asyncio
from typing import Any, Final, TypeAlias

import grpc

from forebay.wire import orca_load_report_pb2, orca_pb2
from forebay_server.service.frontend.messages import MessageError, parse
from forebay_server.service.frontend.statuses import StatusError
from forebay_server.service.load.meter import Load

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICE: Final = "xds.service.orca.v3.OpenRcaService"
TRAILER: Final = "endpoint-load-metrics-bin"
LEAST_INTERVAL_S, DEFAULT_INTERVAL_S = 1.0, 10.0


class LoadReports:
    """See the module.

    Attributes:
        trailer: metadata of the answer to a single request.
    """

    def __init__(self) -> None:
        self._closing = asyncio.Event()
        self._report = b""
        self.trailer: tuple[tuple[str, bytes], ...] = ((TRAILER, b""),)

    def publish(self, load: Load) -> None:
        """Report this load from now on."""
        self._report = orca_load_report_pb2.OrcaLoadReport(
            application_utilization=load.utilization,
            rps_fractional=load.requests_per_s,
            eps=load.failures_per_s,
            named_metrics={"execute_busy": load.busy, "not_in_time": load.not_in_time},
        ).SerializeToString()
        self.trailer = ((TRAILER, self._report),)

    def close(self) -> None:
        """End the calls: the server drains. Idempotent."""
        self._closing.set()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handler for grpc.aio."""
        method = grpc.unary_stream_rpc_method_handler(self.stream_core_metrics)
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamCoreMetrics": method})

    async def stream_core_metrics(self, data: bytes, context: Context) -> None:
        """Report now and after every interval. Raises StatusError."""
        interval_s = _interval_s(data)
        while True:
            await context.write(self._report)
            try:
                await asyncio.wait_for(self._closing.wait(), interval_s)
            except TimeoutError:
                continue
            return


def _interval_s(data: bytes) -> float:
    try:
        request = parse(orca_pb2.OrcaLoadReportRequest, data)
    except MessageError as error:
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
    if not request.HasField("report_interval"):
        return DEFAULT_INTERVAL_S
    return max(LEAST_INTERVAL_S, request.report_interval.seconds + request.report_interval.nanos / 1e9)
