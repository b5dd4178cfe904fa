"""The forecast of egress for the batch that is formed next: a value, made once a step and read by the policy.

Egress is the way of results from host memory to the transport. It is not device work, so that the cost table does not
know it: the front end measures it (`egress_time`), and `egress_forecast` computes this value from it.
"""

from typing import NamedTuple


class Egress(NamedTuple):
    """See the module.

    Attributes:
        first_result_ns: duration of egress until the first result of the next batch has left, were the batch full.
        free_ns: the instant at which egress will have worked off the results in front of the next batch.
        alone_ns: duration for the first result from there, or from the end of the download if that is later.
        interval_ns: and for each further row; a request of several rows has one result.
        margin_ns: how much longer it may take, as a rule.
        is_idle: whether no result is on its way out.
    """

    first_result_ns: int = 0
    free_ns: int = 0
    alone_ns: int = 0
    interval_ns: int = 0
    margin_ns: int = 0
    is_idle: bool = True

    def with_download_ns(self, d2h_ns: float, rows: int) -> float:
        """Return the expected time from the end of execution until half of the results of `rows` rows have left.

        Args:
            d2h_ns: of their download.
            rows: of the batch.
        """
        return d2h_ns + self.first_result_ns + self.interval_ns * rows / 2

    def left_ns(self, downloaded_ns: float, rows: int) -> float:
        """Return when half of the results of a batch will have left that is downloaded at an instant."""
        return max(downloaded_ns, self.free_ns) + self.alone_ns + self.interval_ns * rows / 2

    def left_upper_ns(self, downloaded_ns: float, rows: int) -> float:
        """Return by when its last result has left almost surely."""
        last_ns = self.margin_ns + self.interval_ns * rows
        return max(downloaded_ns, self.free_ns) + self.alone_ns + last_ns


NO_EGRESS = Egress()
"""Nothing is known of egress yet, or there is none: results are delivered when they are downloaded."""
