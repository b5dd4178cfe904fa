"""Chooses pairs of rows and columns with the largest sum of similarities. The only module that imports lap."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.extras import install_hint

Rows = NDArray[np.intp]


class TrackingUnavailableError(Exception):
    """The library for assignments is not installed. The message says how to install it."""


class Pairs(NamedTuple):
    """Matched rows and columns, shape (pairs,) each; a row or column is in one pair at most."""

    rows: Rows
    columns: Rows


def require_library() -> None:
    """Import the library now, so that no frame waits for it.

    Raises:
        TrackingUnavailableError: it is not installed.
    """
    try:
        import lap  # noqa: F401
    except ModuleNotFoundError as error:
        raise TrackingUnavailableError(f"tracks need lap, which is not installed: {install_hint('track')}") from error


def best_pairs(similarity: NDArray[np.floating[Any]], least: float) -> Pairs:
    """Return the pairs with the largest sum of similarities, among pairs that have more than `least`.

    Args:
        similarity: shape (rows, columns), 0 to 1.
        least: pairs with this similarity or less are never made.
    """
    may_pair = similarity > least
    rows, columns = np.nonzero(may_pair)
    # most objects stand alone: a pair that shares neither row nor column with another needs no solver
    is_alone = (may_pair.sum(1)[rows] == 1) & (may_pair.sum(0)[columns] == 1)
    if is_alone.all():
        return Pairs(rows, columns)
    disputed_rows, disputed_columns = np.unique(rows[~is_alone]), np.unique(columns[~is_alone])
    part = np.ix_(disputed_rows, disputed_columns)
    chosen = _solve(np.where(may_pair[part], similarity[part], 0.0))
    is_real = may_pair[part][chosen]
    return Pairs(
        np.concatenate((rows[is_alone], disputed_rows[chosen.rows[is_real]])),
        np.concatenate((columns[is_alone], disputed_columns[chosen.columns[is_real]])),
    )


def _solve(gain: NDArray[np.floating[Any]]) -> Pairs:
    """Return as many pairs as there are rows or columns, with the largest sum of gains."""
    import lap

    _, column_of, _ = lap.lapjv(1.0 - gain.astype(np.float64), extend_cost=True)
    rows = np.flatnonzero(column_of >= 0)
    return Pairs(rows, np.asarray(column_of, np.intp)[rows])
