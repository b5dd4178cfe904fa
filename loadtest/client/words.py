"""gRPC's reports about a connection as helpful messages: the fault and a remedy. Pure."""

import grpc

NO_MODEL = "no model"  # how the message of a server begins that has no model of the name
TENSORS_ONLY = "takes no pictures"  # of Forebay's message for a model without a picture input
_CONNECTING = (
    (("http1.x server",), "HTTP/1 is spoken there: is it an admin port?"),
    (("before receiving settings",), "it takes connections and says nothing: does it hang, or speak another protocol?"),
    (("connection refused", "no such file"), "no server listens; start `forebay serve`, or name another --address"),
    (("lookup failed", "name resolution", "not known"), "the host's name is not known"),
    (("certificate has expired", "certificate is not yet valid"), "its certificate is not valid today"),
    (("handshake", "ssl", "certificate"), "TLS does not work there with this --tls-ca"),
    (("socket closed", "connection reset", "broken pipe"), "it hangs up; a server with TLS needs --tls-ca"),
    (("no route", "unreachable", "timed out", "timeout"), "the host cannot be reached"),
)


def cannot_connect(address: str, code: grpc.StatusCode, details: str | None) -> str:
    """Return the reason why no stream could be opened at an address."""
    details = details or ""
    if code is grpc.StatusCode.UNIMPLEMENTED and TENSORS_ONLY in details:
        return f"{address}: {details}: give --encoding tensor"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{address}: the server does not serve this protocol ({details}); choose another with --protocol"
    if code is grpc.StatusCode.NOT_FOUND and details.startswith(NO_MODEL):
        return f"{address}: {status(code, details)}; name one with --model"
    lowered = details.lower()
    if code is grpc.StatusCode.UNAVAILABLE and lowered.startswith(("failed to connect", "errors resolving", "dns")):
        for causes, words in _CONNECTING:
            if any(cause in lowered for cause in causes):
                return f"{address}: {words}"
    return f"{address}: {status(code, details)}"


def no_agent(address: str, code: grpc.StatusCode, details: str | None) -> str:
    """Return the reason why an agent cannot be used, or no longer."""
    lowered = (details or "").lower()
    if code is grpc.StatusCode.UNAVAILABLE and "connection refused" in lowered:
        return f"no agent listens at {address}; start one there: `forebay load agent --listen HOST:PORT`"
    return f"the agent {address} is gone: {status(code, details)}"


def status(code: grpc.StatusCode, details: str | None) -> str:
    """Return a status as one phrase."""
    return f"{code.name}: {details}" if details else code.name
