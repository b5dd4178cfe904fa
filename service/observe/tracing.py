"""Opens tracing if the settings ask for it; the library behind it is an extra, imported only then."""

import random

from forebay_server.engines.extras import install_hint
from forebay_server.service.clock import Clock
from forebay_server.service.observe.spans import Tracing


class TracingError(Exception):
    """Traces are configured but cannot be made. The message has the reason and a remedy."""


def open_tracing(every_frames: int, clock: Clock) -> Tracing | None:
    """Return an object that makes spans of one frame in `every_frames`; None for 0.

    Raises:
        TracingError: OpenTelemetry is not installed, or its environment variables are invalid.
    """
    if not every_frames:
        return None
    try:
        from forebay_server.service.observe.otlp import open_sink
    except ModuleNotFoundError as error:
        raise TracingError(
            f"trace_every_frames needs OpenTelemetry, which is not installed: {install_hint('otel')}"
        ) from error
    try:
        sink = open_sink(clock)
    except ValueError as error:
        raise TracingError(f"an OTEL_ variable of the environment cannot be used: {error}") from error
    chance = random.Random()  # noqa: S311 - chooses frames, not secrets
    return Tracing(every_frames, sink, lambda most: chance.randint(1, most))
