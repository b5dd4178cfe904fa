"""Delays between calls: full-jitter back-off and a limit on the rate of reopenings of a stream.

Pure; owned by the link.
"""

from collections.abc import Callable

BURST = 3.0  # reopenings without a delay between them: a rebalance must not wait for the limit


class Backoff:
    """Computes the delay before the next call of a stream.

    Full jitter (a uniform draw from 0 to the exponential bound) keeps a thousand cameras from reconnecting in step; the
    token bucket keeps one stream below `reopenings_per_s`, even if the server advises more. Only calls that were opened
    take a token: a stream that found several servers gone may still go on at once where one takes it.
    """

    def __init__(
        self,
        *,
        base_s: float,
        cap_s: float,
        reopenings_per_s: float,
        draw: Callable[[], float],
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._rate = reopenings_per_s
        self._draw = draw
        self._failures = 0
        self._tokens = BURST
        self._counted_ns: int | None = None

    def succeeded(self) -> None:
        """Forget failures, because a frame was answered."""
        self._failures = 0

    def opened(self, now_ns: int) -> None:
        """Take a token, because a call was opened."""
        self._refill(now_ns)
        self._tokens -= 1.0

    def delay_s(self, now_ns: int, *, has_failed: bool, hint_ms: int = 0) -> float:
        """Return the delay before the next call.

        Args:
            now_ns: the current time.
            has_failed: False after an orderly Reconnect, which needs no back-off.
            hint_ms: the server's advice; the wait is at least that long.
        """
        backoff_s = 0.0
        if has_failed:
            bound_s = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, 32))
            backoff_s = self._draw() * bound_s
            self._failures += 1
        return max(backoff_s, hint_ms / 1e3, self._wait_for_token_s(now_ns))

    def _wait_for_token_s(self, now_ns: int) -> float:
        self._refill(now_ns)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def _refill(self, now_ns: int) -> None:
        if self._counted_ns is not None:
            self._tokens = min(BURST, self._tokens + (now_ns - self._counted_ns) / 1e9 * self._rate)
        self._counted_ns = now_ns
