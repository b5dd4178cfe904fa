"""Prometheus' text format. Camera names come from clients and may be anything: they are escaped."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]


class Text:
    """Collects lines of the format."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """Write a metric of one number per series; nothing if there is none."""
        lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if lines:
            self.lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]

    def histogram(
        self, name: str, text: str, series: Sequence[tuple[Labels, Sequence[float], Sequence[int], float]]
    ) -> None:
        """Write histograms: labels, upper bounds, counts by bucket (one more than bounds), and the sum."""
        if series:
            self.lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for labels, bounds, counts, total in series:
            inside = _labels(labels)[1:-1]
            running = list(itertools.accumulate(counts))
            for bound, count in zip((*map(_number, bounds), "+Inf"), running, strict=True):
                self.lines.append(f'{name}_bucket{{{inside},le="{bound}"}} {count}')
            self.lines.append(f"{name}_sum{{{inside}}} {_number(total)}")
            self.lines.append(f"{name}_count{{{inside}}} {running[-1]}")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{escape(value)}"' for key, value in labels.items()) + "}"


def escape(value: str) -> str:
    """Escape a label's value for the format; characters that cannot be encoded become '?'."""
    value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return value.encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(round(float(value), 9))
