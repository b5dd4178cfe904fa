"""Whether the calibrated times may refuse a request: not for ever, if no execution could show them wrong.

A calibration that was much too slow refuses every request whose budget is shorter, and a refused request corrects
nothing. So once requests have been given up for DOUBTED_NS while nothing was executed, the next PROBES are executed all
the same, one after the other on an idle executor. They show how fast it is (`cost_model.Drift`). The executor was idle,
so these few runs delay no other request.

Owner: the former's thread.
"""

from forebay_server.service.batching.constants import DOUBTED_NS, PROBES


class Doubt:
    """See the module."""

    __slots__ = ("_given_up_since_ns", "_probes")

    def __init__(self) -> None:
        self._given_up_since_ns: int | None = None
        self._probes = 0

    def gave_up(self, now_ns: int) -> None:
        """Note that requests were given up because even alone they would be late."""
        if self._given_up_since_ns is None:
            self._given_up_since_ns = now_ns

    def executed(self) -> None:
        """Note that a batch was executed."""
        self._given_up_since_ns = None
        self._probes = max(0, self._probes - 1)

    @property
    def is_probing(self) -> bool:
        """Whether probes are still to come: until then admission has to let requests through."""
        return self._probes > 0

    def wants_probe(self, now_ns: int) -> bool:
        """Whether a request is to be executed now, even if it is expected to be late."""
        if self._given_up_since_ns is not None and now_ns - self._given_up_since_ns >= DOUBTED_NS:
            self._given_up_since_ns, self._probes = None, PROBES
        return self._probes > 0
