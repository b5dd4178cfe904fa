"""The process of a rehearsal: opens the versions of one model as the server would, reports the result, and ends.

Standard input has the order as JSON, standard output takes the answer (`rehearsal.Answer`). All other output, by
libraries for example, goes to standard error. The kernel kills this process when the thread that waits for it ends.

Thread: main. The process shares only files with the server: it fills the server's cache of measured costs.
"""

import base64
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines import import_engine
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.errors import EngineError
from forebay_server.service.child import bind_to_parent
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.models.config import describe
from forebay_server.service.models.files import model_file, serving_versions
from forebay_server.service.models.instances import Part
from forebay_server.service.models.memory import MemoryAccount
from forebay_server.service.models.opening import open_version
from forebay_server.service.models.repository import Repository, RepositoryError
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import Completion
from forebay_server.service.worker_pool import WorkerPool

NICENESS = 5  # serving has priority
FILE_LIMIT_BYTES = 256 << 20  # the file of measured costs has some KB, and standard error is a file too
SLACK_BYTES = 1 << 30  # address space that is never written: thread stacks, reserves of allocators


class _NoSink:
    """A sink for results, which a rehearsal does not have: its only batches are those of the warm-up."""

    def post(self, completions: Sequence[Completion]) -> None:
        """Drop them."""


def main() -> None:
    """Rehearse the order on standard input, and end without cleaning up: the kernel is quicker."""
    answer_file = os.dup(1)
    os.dup2(2, 1)
    order = json.loads(sys.stdin.read())
    bind_to_parent(order["parent_pid"], signal.SIGKILL)
    os.nice(NICENESS)
    lower_limit(resource.RLIMIT_FSIZE, FILE_LIMIT_BYTES)
    lower_limit(resource.RLIMIT_CORE, 0)
    answer = json.dumps(_answer(order)).encode()
    os.write(answer_file, answer)
    os._exit(0)


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"memory_bytes": _rehearse(order)}
    except (RepositoryError, EngineError) as error:
        return {"refusal": str(error)}
    except MemoryError:
        return {"refusal": f"{order['name']}: not enough memory to load it"}
    except Exception:  # noqa: BLE001 - the server logs it
        return {"bug": traceback.format_exc()[-8192:]}


def _rehearse(order: dict[str, Any]) -> int:
    """Open everything, and return the largest number of bytes that this took, without those of the library."""
    entry = Repository([Path(order["root"])]).model(order["name"])
    config = None
    if order["config"] is not None:
        config = ModelConfig.FromString(base64.b64decode(order["config"]))
    description = describe(entry, config, cpu_fallback=order["cpu_fallback"])
    import_engine(description.backend)
    before_bytes = _peak_bytes()
    is_pinned = description.device_kind != DeviceKind.CPU  # otherwise frames take no memory before their first use
    if not is_pinned:
        _limit_memory(order["memory_bytes"])
    context = VersionContext(
        MonotonicClock(),
        WorkerPool(1, lambda _: None),
        _NoSink(),
        Permits(order["permits"] if is_pinned else 1),
        lambda _: None,
        order["engine_options"],
        cache_folder=None if order["cache_folder"] is None else Path(order["cache_folder"]),
        cpu_fallback=order["cpu_fallback"],
        memory=MemoryAccount(order["memory_bytes"]),
        part=Part(*order["part"]),
    )
    for number in serving_versions(entry, description):
        if str(number) not in order["kept"]:
            open_version(description, str(number), model_file(entry, number, description), context)
    return _peak_bytes() - before_bytes


def _limit_memory(memory_bytes: int) -> None:
    """Make allocations fail that are certainly too large: quicker and clearer than being killed for them later.

    Not with a GPU, whose driver reserves any amount of address space.
    """
    lower_limit(resource.RLIMIT_DATA, psutil.Process().memory_info().data + memory_bytes + SLACK_BYTES)


def lower_limit(kind: int, limit: int) -> None:
    """Set a limit of this process, unless the operator's own (`ulimit`) is lower: only root may raise that."""
    _, hard = resource.getrlimit(kind)
    lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (lowest, lowest))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    threading.current_thread().name = "rehearsal"
    main()
