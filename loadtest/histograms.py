"""HDR histograms of latencies: microseconds from 1 us to 1 h with three significant figures.

Reports and processes exchange histograms, because these merge without loss and stay small. Exact quantiles of a run
come from its frames (see quantiles). The only file that sees the hdrhistogram package.
"""

import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest.errors import UsageError

try:
    from hdrh.histogram import HdrHistogram
except ModuleNotFoundError:  # an extra: there is no wheel for aarch64, and servers need none
    raise UsageError("load tests need hdrhistogram, the extra `load`: pip install 'hdrhistogram>=0.10.3'") from None

HIGHEST_US = 3_600_000_000
_FIGURES = 3
_US_PER_MS = 1000.0


def of(latency_ms: npt.NDArray[np.float64]) -> HdrHistogram:
    """Return the histogram of latencies in milliseconds."""
    histogram = HdrHistogram(1, HIGHEST_US, _FIGURES)
    clipped_us = np.clip(np.rint(latency_ms * _US_PER_MS), 1, HIGHEST_US).astype(np.int64)
    for value, count in zip(*np.unique(clipped_us, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    return histogram


def encode(latency_ms: npt.NDArray[np.float64]) -> str:
    """Return the compressed histogram as text."""
    return str(of(latency_ms).encode().decode("ascii"))


def merge(encoded: Iterable[str]) -> HdrHistogram:
    """Return the sum of encoded histograms."""
    merged = HdrHistogram(1, HIGHEST_US, _FIGURES)
    for text in encoded:
        merged.decode_and_add(text)
    return merged


def values(encoded: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the values (milliseconds) of a histogram, rising, and the count of each.

    Reads the counts as one array: the package's own iterators take 46 ms a histogram, this 0.1.
    """
    histogram = HdrHistogram.decode(encoded)
    counts = np.ctypeslib.as_array(histogram.counts).astype(np.int64)
    places = np.flatnonzero(counts)
    half = int(histogram.sub_bucket_half_count)
    bucket = places // half - 1
    value = np.where(bucket < 0, places, (places % half + half) << np.maximum(bucket, 0))
    middle = (1 << np.maximum(bucket, 0)) // 2  # of the values that share this count
    return (value + middle) / _US_PER_MS, counts[places]


def percentile_ms(histogram: HdrHistogram, percent: float) -> float:
    """Return one percentile; 0 for an empty histogram."""
    return float(histogram.get_value_at_percentile(percent)) / _US_PER_MS


def hgrm(encoded: str) -> str:
    """Return the percentile distribution in milliseconds, as HdrHistogram's plotters read it."""
    file = io.BytesIO()
    HdrHistogram.decode(encoded).output_percentile_distribution(file, _US_PER_MS)
    return file.getvalue().decode("ascii")
