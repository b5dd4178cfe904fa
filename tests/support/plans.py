"""Costs of models and frames for tests of plans."""

import dataclasses

from forebay_server.bench.affine_table import affine_table
from forebay_server.bench.plan.costs import FrameCosts, PlanCosts
from forebay_server.service.batching.cost_table import CostIdentity

MS, US = 1_000_000, 1_000


def costs_of(
    *,
    alpha_ns: int = MS,
    beta_ns: int = 8 * MS,
    largest: int = 4,
    decode_ns: int = 2 * MS,
    loop_ns: int = 300 * US,
    camera_ns: int = 200 * US,
    strands: int = 1,
    instances: int = 1,
    scatter: float = 0.05,
) -> PlanCosts:
    """Return costs of a model whose batches take alpha + beta*b, and of JPEG pictures before it."""
    sizes = tuple(range(1, largest + 1))
    return PlanCosts(
        model="crossing",
        encoding="jpeg",
        width=640,
        height=360,
        frame_bytes=30_000,
        table=dataclasses.replace(affine_table(sizes, alpha_ns, beta_ns), identity=CostIdentity(device="cpu")),
        executed_sizes=sizes,
        instances=instances,
        strands=strands,
        scatter=scatter,
        frame=FrameCosts(50 * US, loop_ns, decode_ns, 300 * US, 100 * US, camera_ns),
        cores=2,
    )
