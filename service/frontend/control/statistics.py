"""ModelStatistics."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import grpc

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.control.rpc import Rpc
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.journal.statistics import Duration, VersionStatistics


class CountedVersion(Protocol):
    """A version of a model whose counts are complete here."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> str:
        """Decimal number."""
        ...

    @property
    def statistics(self) -> VersionStatistics:
        """All counts."""
        ...


class StatisticsRpcs:
    """See the module. Thread: the event loop's.

    Args:
        lookup: finds versions.
        versions: returns the serving versions.
    """

    def __init__(self, lookup: ModelLookup, versions: Callable[[], Iterable[CountedVersion]]) -> None:
        self._lookup = lookup
        self._versions = versions

    def rpcs(self) -> dict[str, tuple[Rpc, Any]]:
        """Return the RPCs by name."""
        return {"ModelStatistics": (self.statistics, pb.ModelStatisticsRequest)}

    def statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Answer with the counts of one version, all versions of a model, or all models."""
        if request.name:
            self._check_ready(request.name, request.version)
        chosen = [
            version
            for version in self._versions()
            if request.name in ("", version.name) and request.version in ("", version.version)
        ]
        return pb.ModelStatisticsResponse(model_stats=[_statistics(version) for version in chosen])

    def _check_ready(self, name: str, version: str) -> None:
        """Raise InferenceError unless a model and version serve: Triton has its own messages for its statistics."""
        if self._lookup.is_ready(name, version):
            return
        if not self._lookup.is_known(name):
            self._lookup.find(name, version)  # raises the right error
        if self._lookup.is_ready(name, ""):
            raise InferenceError(
                grpc.StatusCode.INVALID_ARGUMENT, f"requested model version is not available for model '{name}'"
            )
        raise InferenceError(grpc.StatusCode.INVALID_ARGUMENT, f"requested model '{name}' is not available")


def _statistics(version: CountedVersion) -> pb.ModelStatistics:
    counts = version.statistics.snapshot()
    return pb.ModelStatistics(
        name=version.name,
        version=version.version,
        last_inference=counts.last_inference_ms,
        inference_count=counts.rows,
        execution_count=counts.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(counts.success),
            fail=_duration(counts.fail),
            queue=_duration(counts.queue),
            compute_input=_duration(counts.compute_input),
            compute_infer=_duration(counts.compute_infer),
            compute_output=_duration(counts.compute_output),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(batch.compute_input),
                compute_infer=_duration(batch.compute_infer),
                compute_output=_duration(batch.compute_output),
            )
            for rows, batch in sorted(counts.batches.items())
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
