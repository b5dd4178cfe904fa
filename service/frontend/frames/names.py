"""The names that a client gets in Opened. Pure."""

from forebay_server.service.results.task import DetectionTask, Task

MAX_BYTES = 65_536
"""Of all names of a kind, about 5,000 labels; beyond it clients take the label of each detection."""


def labels_to_send(task: Task | None) -> tuple[str, ...]:
    """Return the names of a model's classes; none if it has none, or too many."""
    return () if task is None else _that_fit(task.labels)


def keypoint_names_to_send(task: Task | None) -> tuple[str, ...]:
    """Return the names of a pose model's keypoints; none if it is another model, or has none."""
    return _that_fit(task.keypoint_names) if isinstance(task, DetectionTask) else ()


def _that_fit(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if sum(len(name.encode()) for name in names) <= MAX_BYTES else ()
