"""A minimal xDS server: one name, whose streams gRPC itself spreads over some servers.

Messages are written field by field, because the packages with xDS' own classes are large and of other protobufs.
"""

from contextlib import asynccontextmanager

import grpc
import grpc.aio

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_TYPES = "type.googleapis.com/envoy."
LISTENER = f"{_TYPES}config.listener.v3.Listener"
CLUSTER = f"{_TYPES}config.cluster.v3.Cluster"
ENDPOINTS = f"{_TYPES}config.endpoint.v3.ClusterLoadAssignment"
_HTTP = f"{_TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPES}extensions.filters.http.router.v3.Router"
_FLEET = "fleet"  # the cluster


def number(value):
    """Return a varint."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def message(*fields):
    """Return a message of (number, value): an integer, text, or an encoded message."""
    encoded = b""
    for key, value in fields:
        if isinstance(value, int):
            encoded += number(key << 3) + number(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += number(key << 3 | 2) + number(len(data)) + data
    return encoded


def texts(data):
    """Return the fields of a message that have a length: (number, bytes) of each."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        length = varint()
        if key & 7 == 2:
            found.append((key >> 3, data[at : at + length]))
            at += length
    return found


def any_of(kind, data=b""):
    """Return a google.protobuf.Any."""
    return message((1, kind), (2, data))


def resources(name, ports):
    """Return the resource of each type for a name whose servers listen on ports of 127.0.0.1."""
    route = message((1, message((1, "/"))), (2, message((1, _FLEET))))
    host = message((1, "all"), (2, "*"), (3, route))
    router = message((1, "router"), (4, any_of(_ROUTER)))
    connections = message((4, message((1, "routes"), (2, host))), (5, router))
    by_this_stream = message((1, message((3, b""), (6, 2))))  # endpoints come over ADS, version 3
    places = [message((1, message((1, message((2, "127.0.0.1"), (3, port)))))) for port in ports]
    one = message((1, 1))
    locality = message((1, message((1, "here"))), *((2, message((1, place))) for place in places), (3, one))
    return {
        LISTENER: message((1, name), (19, message((1, any_of(_HTTP, connections))))),
        CLUSTER: message((1, _FLEET), (2, 3), (3, by_this_stream)),
        ENDPOINTS: message((1, _FLEET), (2, locality)),
    }


@asynccontextmanager
async def xds_server(name, ports):
    """Run one; yields its address."""
    known, answered = resources(name, ports), set()

    async def discover(requests, context):
        async for request in requests:
            fields = dict(texts(request))
            kind = fields[4].decode()
            if 5 in fields or kind not in known:  # it has an answer
                continue
            answered.add(kind)
            await context.write(message((1, "1"), (2, any_of(kind, known[kind])), (4, kind), (5, "1")))

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(discover)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"StreamAggregatedResources": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
