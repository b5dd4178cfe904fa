"""The parts of the latency: the client's wait, the network, and the server's own stages.

The server's stage durations are taken as reported; the network is the rest of the service time, which is measured on
the client's clock alone. Two hosts' clocks are never subtracted. Means add up to the mean latency; `tail` is the mean
over the slowest hundredth, so it adds up as well.
"""

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest.recorder import Rows
from forebay_server.loadtest.target import STAGES

CLIENT, NETWORK = "client", "network"


def breakdown(answered: Rows, latency_ms: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Return mean, p99 and tail mean (milliseconds) by part, in the order in which a frame passes them.

    Empty if the server reports no stages. Stages of zero duration are left out.
    """
    reported = answered["stages_us"][:, len(STAGES)] > 0
    if not reported.any():
        return {}
    rows, latency_ms = answered[reported], latency_ms[reported]
    stages_ms = rows["stages_us"] / 1e3
    client_ms = (rows["sent_ns"] - rows["intended_ns"]) / 1e6
    network_ms = (rows["done_ns"] - rows["sent_ns"]) / 1e6 - stages_ms[:, len(STAGES)]
    tail = latency_ms >= np.quantile(latency_ms, 0.99)
    parts = {CLIENT: client_ms, NETWORK: network_ms}
    parts |= {name: stages_ms[:, place] for place, name in enumerate(STAGES) if stages_ms[:, place].any()}
    # The part of the server's total that its stages do not explain belongs to the server, not to the network.
    rest_ms = stages_ms[:, len(STAGES)] - stages_ms[:, : len(STAGES)].sum(axis=1)
    if float(np.abs(rest_ms).mean()) > 0.01:
        parts["unexplained"] = rest_ms
    return {
        name: {
            "mean_ms": float(values.mean()),
            "p99_ms": float(np.quantile(values, 0.99)),
            "tail_ms": float(values[tail].mean()),
        }
        for name, values in parts.items()
    }
