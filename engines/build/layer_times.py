"""Time of a model by operator: ONNX Runtime's own profile, folded."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from forebay_server.engines.build.onnx_file import load_model


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One operator after the runtime's own fusions.

    Attributes:
        name: of the node.
        operator: its type.
        mean_us: wall time of one run on one thread.
        share: of the sum of all.
    """

    name: str
    operator: str
    mean_us: float
    share: float


def onnx_layer_times(path: Path, feed: Mapping[str, NDArray[Any]], runs: int = 20) -> list[LayerTime]:
    """Run an ONNX model `runs` times on one thread; return its operators, the slowest first."""
    import onnxruntime

    load_model(path)  # for its errors
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    totals: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
            totals[key] = totals.get(key, 0.0) + event["dur"]
    whole = sum(totals.values()) or 1.0
    times = [LayerTime(name, operator, us / runs, us / whole) for (name, operator), us in totals.items()]
    return sorted(times, key=lambda each: -each.mean_us)
