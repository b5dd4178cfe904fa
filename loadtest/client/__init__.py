"""The load generator's side of the wire: with null_server the only part of it that sees gRPC.

Every protocol is one module, imported when it is asked for. Import this package only after
process_tuning.tune_process where the cost of gRPC matters.
"""

from forebay_server.loadtest.target import Protocols, Target, TargetSpec


def open_target(spec: TargetSpec, streams: int) -> Target:
    """Return the target for the protocol of `spec`, ready to open `streams` streams on the running event loop.

    Raises:
        CannotConnectError: a file that the connection needs cannot be read.
    """
    if spec.protocol is Protocols.FOREBAY:
        from forebay_server.loadtest.client.forebay_v1 import ForebayTarget

        return ForebayTarget(spec, streams)
    from forebay_server.loadtest.client.open_inference import OpenInferenceTarget

    return OpenInferenceTarget(spec, streams)
