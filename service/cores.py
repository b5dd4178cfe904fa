"""How many cores this process may use: by its affinity, and by the quota of its control group.

Source: sched_getaffinity(2); cpu.max of control groups version 2, cpu.cfs_quota_us and cpu.cfs_period_us of version 1.
"""

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = CONTROL_GROUPS) -> int:
    """Return the number of cores, at least 1; a quota of two and a half cores counts as two.

    Args:
        groups: where the kernel shows the control group of this process, as in a container.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(groups)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(groups: Path) -> float | None:
    """Return the quota in cores; None without one."""
    try:
        limit, period = (groups / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        try:
            limit = (groups / "cpu" / "cpu.cfs_quota_us").read_text("ascii").strip()
            period = (groups / "cpu" / "cpu.cfs_period_us").read_text("ascii").strip()
        except (OSError, ValueError):
            return None
    try:
        return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
