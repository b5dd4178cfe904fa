"""torch.profiler for `forebay engine profile`, with an install hint if torch is missing."""

from collections.abc import Callable
from pathlib import Path

from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.engines.extras import install_hint


def trace_runs(run: Callable[[], object], runs: int, path: Path) -> list[tuple[str, float]]:
    """Write a trace of `runs` calls; return operators with their own time per call in us, the slowest first."""
    try:
        from forebay_server.engines.pytorch.profiling import write_trace
    except ImportError as error:
        raise BackendUnavailableError(f"{error}: {install_hint('torch')}") from error
    return write_trace(run, runs, path)
