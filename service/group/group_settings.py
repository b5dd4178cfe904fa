"""The settings of the processes of a group, from those of the whole."""

from forebay_server.service.cores import usable_cores
from forebay_server.service.settings import LEAST_RECEPTION_BYTES, ServeSettings

LEAST_WORKERS = 2
"""Of a front-end process: typed results do not wait behind a large picture."""


def engine_settings(settings: ServeSettings, count: int, index: int = 0) -> ServeSettings:
    """Return the settings of an engine process. It knows the number of front-end processes by `front_ends`.

    The first of several has the admin port and makes the spans, for all.
    """
    own: dict[str, object] = {"front_ends": count, "ready_file": None, "uds": None}
    if index:
        own |= {"admin_address": "", "trace_every_frames": 0}
    if settings.engines != "auto" and settings.engines > 1:
        own["model_memory_bytes"] = settings.model_memory_bytes // settings.engines
    return settings.model_copy(update=own)


def front_end_settings(settings: ServeSettings, count: int, address: str) -> ServeSettings:
    """Return the settings of the front-end processes. The unix socket is the first one's alone.

    Limits that no process can share with the others are divided. A process has its part of them, rounded up.
    """
    return settings.model_copy(
        update={
            "address": address,
            "share_port": True,
            "front_ends": count,
            "ready_file": None,
            "max_connections": -(-settings.max_connections // count),
            "reception_bytes": max(LEAST_RECEPTION_BYTES, -(-settings.reception_bytes // count)),
            "worker_threads": settings.worker_threads or max(LEAST_WORKERS, usable_cores() // count),
        }
    )
