"""Predicts how long a batch of b rows takes in each stage; corrects itself online by one drift ratio per stage.

Theory of operation
    The shape comes from a calibrated `CostTable`; sizes between two measured ones are interpolated, sizes that the
    engine pads (`sizes` = the captured ones) cost as much as the padded size. Service learns only how much slower
    or faster everything runs than at calibration (`ratio`, gain 0.1) and how much the durations scatter
    (`variance`). One ratio, not a fit per size: a fit with forgetting winds up while only one size is seen,
    over-estimates the others, sheds, and then never sees them again.

    One batch far from its expected duration is an outlier and moves the ratio by a twentieth. Three in a row on the
    same side are another speed: the ratio becomes that of the nearest of them. So the model notices the end of a
    slowdown within three batches, however long and slow it was.

    `mean_ns` is the calibrated time times the ratio; `estimate_ns` is its upper quantile (about 97.5 %), which decides
    what still fits a deadline. The first execution of a size in service never enters the ratio: it pays for caches.

    Where devices decode files, the upload of files is a stage of its own: it has its own calibrated durations by batch
    size and its own drift. Batches mix, so an upload is expected to take what the recent share of files makes of both.

Owner: the former's thread. Not thread-safe.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from forebay_server.service.batching.calibrate import calibrate
from forebay_server.service.batching.constants import (
    EFFICIENCY_LOSS,
    FILE_SHARE_GAIN,
    FIRST_SIGMA,
    HALF,
    LARGEST_ERROR,
    LEAST_SIGMA,
    OUTLIERS,
    OVERHEAD_NS,
    QUANTILE_SIGMAS,
    RATIO_GAIN,
    RATIO_RANGE,
    VARIANCE_GAIN,
)
from forebay_server.service.batching.cost_table import CostTable, CostTableError, StageTimes, isotonic

__all__ = ["CostModel", "CostTable", "CostTableError", "Drift", "StageTimes", "calibrate"]


class Drift:
    """How the durations of one stage differ from their calibration.

    Attributes:
        ratio: running factor, 0.05 to 8.
        variance: running relative variance around it.
    """

    __slots__ = ("_least_sigma", "_nearest", "_outliers", "factor", "ratio", "variance")

    def __init__(self, first_sigma: float = FIRST_SIGMA, least_sigma: float = LEAST_SIGMA) -> None:
        self.ratio = 1.0
        self.variance = first_sigma**2
        self.factor = 1.0 + QUANTILE_SIGMAS * first_sigma
        self._least_sigma = least_sigma
        self._outliers = 0  # in a row; negative: shorter than expected
        self._nearest = 1.0  # the ratio of the one among them that surprises least

    def observe(self, measured_ns: int, calibrated_ns: int) -> None:
        """Learn from one duration. One of 0 or less was not measured, and is ignored."""
        if measured_ns <= 0 or calibrated_ns <= 0:
            return
        error = measured_ns / (calibrated_ns * self.ratio) - 1.0
        clipped = max(-LARGEST_ERROR, min(LARGEST_ERROR, error))
        self.variance += VARIANCE_GAIN * (clipped * clipped - self.variance)
        ratio = self.ratio * (1.0 + RATIO_GAIN * clipped)
        if error == clipped:
            self._outliers = 0
        elif self._is_new_speed(measured_ns / calibrated_ns, 1 if error > 0.0 else -1):
            ratio = self._nearest
        low, high = RATIO_RANGE
        self.ratio = max(low, min(high, ratio))
        self.factor = self.ratio * (1.0 + QUANTILE_SIGMAS * max(self._least_sigma, math.sqrt(self.variance)))

    def _is_new_speed(self, ratio: float, side: int) -> bool:
        """Count an outlier, and return whether it and those before it are none."""
        if self._outliers * side > 0:
            self._nearest = min(self._nearest * side, ratio * side) * side
            self._outliers += side
        else:
            self._nearest, self._outliers = ratio, side
        if abs(self._outliers) < OUTLIERS:
            return False
        self._outliers = 0
        return True


class CostModel:
    """See the module's theory of operation.

    Args:
        sizes: the batch sizes that the engine runs, rising; a batch of another size is padded to the next one. The
            largest is the most rows that a batch may have.
        table: calibrated durations; gaps between its sizes are interpolated.
        file_uploads: calibrated durations of uploads of files, by batch size; None: there are no files.

    Attributes:
        file_share: recent share of files among the requests.
    """

    def __init__(self, sizes: Sequence[int], table: CostTable, file_uploads: Mapping[int, int] | None = None) -> None:
        self.sizes = tuple(sorted(set(sizes)))
        if not self.sizes or self.sizes[0] < 1:
            raise CostTableError(f"batch sizes must be at least 1, not {list(sizes)}")
        self.table = table
        self.max_size = self.sizes[-1]
        self.execute_drift, self.h2d_drift, self.d2h_drift = Drift(), Drift(0.0, 0.0), Drift()
        self.files_drift = Drift(0.0, 0.0)
        self.file_share = -1.0 if file_uploads else 0.0  # negative: no request has come yet
        self._seen: set[int] = set()
        padded = [self.bucket(rows) for rows in range(self.max_size + 1)]
        self._bucket = padded
        self.execute_base = _expand(table.sizes, table.execute_ns, padded)
        self._h2d_base = _expand(table.sizes, table.h2d_ns, padded)
        self._d2h_base = _expand(table.sizes, table.d2h_ns, padded)
        self._files_base: list[int] = []
        if file_uploads:
            measured = sorted(file_uploads)
            self._files_base = _expand(measured, isotonic([file_uploads[size] for size in measured]), padded)
        occupied_ns = [max(OVERHEAD_NS, base_ns) for base_ns in self.execute_base]
        self.alpha_base_ns, self.beta_base_ns = _affine_fit(self.sizes, occupied_ns)
        self.efficient_size = self._most_efficient_size()

    def _most_efficient_size(self) -> int:
        rates = {size: size / max(OVERHEAD_NS, self.execute_base[size]) for size in self.sizes}
        best = max(rates.values())
        return next(size for size in self.sizes if rates[size] >= best * (1.0 - EFFICIENCY_LOSS))

    def bucket(self, rows: int) -> int:
        """Return the size that the engine runs for a batch of `rows` rows (0 for none)."""
        if rows <= 0:
            return 0
        return self.sizes[min(bisect_left(self.sizes, rows), len(self.sizes) - 1)]

    def mean_ns(self, rows: int) -> float:
        """Return the expected execution time."""
        return self.execute_base[rows] * self.execute_drift.ratio

    def estimate_ns(self, rows: int) -> float:
        """Return an execution time that is exceeded in about one of forty batches."""
        return self.execute_base[rows] * self.execute_drift.factor

    def h2d_ns(self, rows: int) -> float:
        """Return the expected upload time, from the decision to `uploaded`."""
        return self._mixed(rows, self.h2d_drift.ratio, self.files_drift.ratio)

    def h2d_upper_ns(self, rows: int) -> float:
        """Return an upload time that is exceeded in about one of forty batches."""
        return self._mixed(rows, self.h2d_drift.factor, self.files_drift.factor)

    def _mixed(self, rows: int, plain_factor: float, files_factor: float) -> float:
        """Return the time of an upload with the recent share of files."""
        plain_ns = self._h2d_base[rows] * plain_factor
        if self.file_share <= 0.0:
            return plain_ns
        return plain_ns + self.file_share * (self._files_base[rows] * files_factor - plain_ns)

    def expect(self, *, is_file: bool) -> None:
        """Learn from one request that came, whether it brings a file. Nothing where there are no files."""
        if not self._files_base:
            return
        if self.file_share < 0.0:
            self.file_share = float(is_file)
        self.file_share += FILE_SHARE_GAIN * (is_file - self.file_share)

    def d2h_ns(self, rows: int) -> float:
        """Return the expected download time."""
        return self._d2h_base[rows] * self.d2h_drift.ratio

    def floor_or_pad(self, rows: int) -> int:
        """Return how many of `rows` rows to run now: all, padded, or fewer at a size that wastes nothing.

        Fewer when their rate is better than that of all padded: 17 of sizes (16, 32) run as 16, 5 of (4, 8) as 5.
        """
        padded = self._bucket[rows]
        if padded == rows:
            return rows
        position = bisect_right(self.sizes, rows) - 1
        if position < 0:
            return rows
        floor = self.sizes[position]
        return floor if floor * self.execute_base[padded] > rows * self.execute_base[floor] else rows

    def least_service_ns(self) -> float:
        """Return the least that a lone row needs on an idle executor, from decision to outputs in host memory.

        No stage counts as slower than calibrated: on an idle executor nothing but a run could correct a drift.
        """
        return self.least_work_ns(1) + self._d2h_base[1] * min(1.0, self.d2h_drift.ratio)

    def least_work_ns(self, rows: int) -> float:
        """Return the least that an upload and an execution of `rows` rows take: neither slower than calibrated."""
        upload_ns = self._h2d_base[rows] * min(1.0, self.h2d_drift.ratio)
        if self.file_share > HALF:  # a lone row may be no file, but most are
            upload_ns = self._files_base[rows] * min(1.0, self.files_drift.ratio)
        return upload_ns + self.execute_base[rows] * min(1.0, self.execute_drift.ratio)

    def observe(self, rows: int, h2d_ns: int, execute_ns: int, files: float = 0.0) -> None:
        """Learn from one executed batch.

        Args:
            rows: executed.
            h2d_ns: duration of the upload; of this and the other, 0 or less was not measured and is ignored.
            execute_ns: duration of the execution.
            files: share of files among its requests. The upload of a batch of both says nothing about either.
        """
        if not 1 <= rows <= self.max_size:
            return
        size = self._bucket[rows]
        if size not in self._seen:
            self._seen.add(size)
            return
        self.execute_drift.observe(execute_ns, self.execute_base[size])
        if files >= 1.0 and self._files_base:
            self.files_drift.observe(h2d_ns, self._files_base[size])
        elif files <= 0.0:
            self.h2d_drift.observe(h2d_ns, self._h2d_base[size])

    def observe_download(self, rows: int, d2h_ns: int) -> None:
        """Learn from a download of `rows` rows, which is measured later than the rest."""
        if 1 <= rows <= self.max_size:
            self.d2h_drift.observe(d2h_ns, self._d2h_base[self._bucket[rows]])


def _expand(sizes: Sequence[int], durations: Sequence[int], padded: Sequence[int]) -> list[int]:
    """Return a duration for every number of rows from 0: interpolated, and extended with the last slope."""
    return [0, *(_interpolate(sizes, durations, size) for size in padded[1:])]


def _interpolate(sizes: Sequence[int], durations: Sequence[int], size: int) -> int:
    if len(sizes) == 1 or size <= sizes[0]:
        return durations[0] if size <= sizes[0] else round(durations[0] * size / sizes[0])
    right = min(bisect_left(sizes, size), len(sizes) - 1)
    left = right - 1
    slope = (durations[right] - durations[left]) / (sizes[right] - sizes[left])
    return round(durations[left] + slope * (size - sizes[left]))


def _affine_fit(sizes: Sequence[int], base: Sequence[int]) -> tuple[float, float]:
    """Return alpha and beta of t = alpha + beta*b by relative least squares, both at least a nanosecond."""
    if len(sizes) == 1:
        return 1.0, max(1.0, base[sizes[0]] / sizes[0])
    weights = [1.0 / base[size] ** 2 for size in sizes]
    total = sum(weights)
    mean_size = sum(w * size for w, size in zip(weights, sizes, strict=True)) / total
    mean_time = sum(w * base[size] for w, size in zip(weights, sizes, strict=True)) / total
    covariance = sum(w * (s - mean_size) * (base[s] - mean_time) for w, s in zip(weights, sizes, strict=True))
    spread = sum(w * (s - mean_size) ** 2 for w, s in zip(weights, sizes, strict=True))
    beta = max(1.0, covariance / spread)
    return max(1.0, mean_time - beta * mean_size), beta
