"""A stream's request for track ids, checked: pure, except that it looks for the library of the tracker."""

from dataclasses import dataclass, replace

from forebay_server.service.errors import InvalidSessionError, UnsupportedError
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.results.task import DetectionTask
from forebay_server.service.results.wants import Wants
from forebay_server.service.tracks.assignment import TrackingUnavailableError, require_library
from forebay_server.service.tracks.settings import TrackSettings

LEAST_SCORE = 0.1
"""Detections from this score on are looked at, because an object that is being hidden scores low for some frames."""
NEW_ABOVE = 0.1
"""A track begins this much above the stream's threshold, as in ByteTrack."""


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """How the objects of a stream are tracked.

    Attributes:
        settings: of the tracker.
        least_score: detections below it are not sent; the stream's own threshold.
        state: of an earlier call, from the client, not checked; empty at the first call.
    """

    settings: TrackSettings
    least_score: float
    state: bytes


def track_request(version: ServedVersion, wants: Wants, state: bytes) -> tuple[TrackRequest, Wants]:
    """Return how a stream is tracked, and its wants with a threshold that lets the tracker see low scores.

    Raises:
        UnsupportedError: the model gives no boxes, or this server has no tracker.
        InvalidSessionError: the stream wants no detections.
    """
    task = version.description.task
    if not isinstance(task, DetectionTask):
        raise UnsupportedError(f"open.track: model {version.name!r} does not give detections; leave track out")
    if wants.options is None:
        raise InvalidSessionError("open.track needs OUTPUT_DETECTIONS in open.outputs")
    try:
        require_library()
    except TrackingUnavailableError:
        raise UnsupportedError("open.track: this server was installed without its extra 'track'") from None
    threshold, _, _ = wants.options.for_detections(task)
    low_score = min(LEAST_SCORE, threshold)
    settings = TrackSettings(high_score=threshold, low_score=low_score, new_score=min(1.0, threshold + NEW_ABOVE))
    options = replace(wants.options, score_threshold=low_score)
    return TrackRequest(settings, threshold, state), Wants(options, wants.tensor_indices)
