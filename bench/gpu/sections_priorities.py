"""The section on priorities: cameras of one model while another keeps the GPU busy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.gpu.loads import CLIENT_START_S, Target, cameras_load, requests_load, write_payloads
from bench.gpu.plan import Plan
from bench.gpu.server import SIDES, ServedNetwork, gpu_server

CAMERAS, BULK = "cameras", "bulk"
ARRANGEMENTS = {
    "one priority": ("", ""),
    "cameras PRIORITY_MAX": ("PRIORITY_MAX", ""),
    "cameras PRIORITY_MAX, bulk PRIORITY_MIN": ("PRIORITY_MAX", "PRIORITY_MIN"),
}
"""Priorities of the cameras' model and of the other."""


def priorities(plan: Plan) -> Iterator[dict[str, Any]]:
    """Eight cameras on the detector, alone and beside whole batches for another network, at different priorities."""
    payloads = write_payloads(plan)
    rows, bulk_network = plan.batch_sizes[-1], plan.networks[-1]
    crowd = min(8, plan.cameras[-1])
    for name, (of_cameras, of_bulk) in ARRANGEMENTS.items():
        models = {
            CAMERAS: ServedNetwork(plan.detector, rows, priority=of_cameras),
            BULK: ServedNetwork(bulk_network, rows, priority=of_bulk),
        }
        with gpu_server(plan, models) as server, ThreadPoolExecutor(1) as pool:
            cameras = cameras_load(Target([server], CAMERAS, payloads[plan.detector]), 1, crowd, "every")
            bulk = requests_load(Target([server], BULK, payloads[bulk_network]), 2, 2, rows, SIDES[bulk_network])
            facts = {"cameras": crowd, "arrangement": name}
            if name == next(iter(ARRANGEMENTS)):
                yield facts | {"arrangement": "cameras alone", "of_cameras": cameras(plan.camera_seconds)}
            running = pool.submit(bulk, plan.camera_seconds + 2 * CLIENT_START_S)
            found = facts | {"of_cameras": cameras(plan.camera_seconds)}
            yield found | {"of_bulk": running.result()}
