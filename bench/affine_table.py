"""The cost table of an executor whose batches take alpha + beta*b, as the benchmarks and the tests have them."""

from collections.abc import Sequence

from forebay_server.service.batching.cost_table import CostTable, StageTimes


def affine_table(
    sizes: Sequence[int],
    alpha_ns: int,
    beta_ns: int,
    *,
    h2d_ns: tuple[int, int] = (0, 0),
    d2h_ns: tuple[int, int] = (0, 0),
) -> CostTable:
    """Return the table of t(b) = alpha + beta*b; copies take `(fixed, per row)` nanoseconds."""
    return CostTable.from_times(
        {
            size: StageTimes(h2d_ns[0] + h2d_ns[1] * size, alpha_ns + beta_ns * size, d2h_ns[0] + d2h_ns[1] * size)
            for size in sizes
        }
    )
