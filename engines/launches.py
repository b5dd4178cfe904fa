"""Counts of executions by way, for engines that have more than one."""

from dataclasses import dataclass


@dataclass(slots=True)
class Launches:
    """Written by the thread that enqueues; read by metrics, any thread.

    Attributes:
        graph: executions that were one launch of a captured CUDA graph.
        plain: executions that were enqueued kernel by kernel.
    """

    graph: int = 0
    plain: int = 0
