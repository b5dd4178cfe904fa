"""How many front-end and engine processes a server has: by its settings, or by the machine.

Imports neither grpc nor CUDA.
"""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from forebay_server.service.cores import usable_cores

FEW_CORES = 4  # a front-end process more would take from the engine process what it gives to clients
CORES_EACH = 3  # that a front-end process, its clients' share of the machine, and the engine process need
LEAST, MOST = 2, 8
MOST_ENGINES = 16  # as the setting
ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg")
"""Device files of NVIDIA's driver, on Linux and in the Windows subsystem for Linux."""


class CountError(ValueError):
    """This machine cannot have so many front-end processes. The message has the reason and a remedy."""


def front_end_count(
    wanted: int | Literal["auto"], cores: int | None = None, accelerators: Iterable[str] = ACCELERATORS
) -> int:
    """Return the number of front-end processes; 0: the engine process has the front end.

    Args:
        wanted: the setting.
        cores: that this process may use; None: count them.
        accelerators: device files of which one exists on a machine with an accelerator.

    Raises:
        CountError: more than there are cores, or the system cannot share a port.
    """
    cores = usable_cores() if cores is None else cores
    if wanted == "auto":
        if cores <= FEW_CORES or not shares_ports() or not any(Path(path).exists() for path in accelerators):
            return 0
        return max(LEAST, min(MOST, cores // CORES_EACH))
    if wanted > cores:
        raise CountError(
            f"front_ends is {wanted} and this process may use {cores} {'core' if cores == 1 else 'cores'}: "
            f"give at most {cores}, or 0 to have the front end in the engine process"
        )
    if wanted and not shares_ports():
        raise CountError(f"front_ends is {wanted}, and this system cannot share a port (SO_REUSEPORT): set it to 0")
    return wanted


def engine_count(
    wanted: int | Literal["auto"], front_ends: int, gpus: Iterable[object] | None = None, visible: str | None = None
) -> int:
    """Return the number of engine processes.

    Args:
        wanted: the setting.
        front_ends: how many front-end processes there are.
        gpus: device files of GPUs; None: look.
        visible: the variable that hides GPUs from CUDA; None: look.

    Raises:
        CountError: several, and no front-end process.
    """
    if wanted == "auto":
        if front_ends == 0:
            return 1
        found = Path("/dev").glob("nvidia[0-9]*") if gpus is None else gpus
        count = len(list(found))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        if visible:
            count = min(count, len(visible.split(",")))
        return max(1, min(MOST_ENGINES, count))
    if wanted > 1 and front_ends == 0:
        raise CountError(
            f"engines is {wanted}, and there are no front-end processes to share requests out: give front_ends a number"
        )
    return wanted


def shares_ports() -> bool:
    """Whether several processes may listen on one port here."""
    if os.name != "posix" or not hasattr(socket, "SO_REUSEPORT"):
        return False
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        return False
    return True
