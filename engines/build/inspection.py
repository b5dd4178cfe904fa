"""The contents of a model file: tensors, precision, operators; of a plan also profiles, layers and memory."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay_server.engines.build.network import precision_of
from forebay_server.engines.build.onnx_file import import_onnx, load_model
from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.engines.trt import library as libraries
from forebay_server.engines.trt import manifest
from forebay_server.engines.trt.plan import activation_bytes, deserialize


@dataclass(slots=True)
class Inspection:
    """Attributes that do not apply to a kind of file are empty.

    Attributes:
        kind: `onnx` or `plan`.
        file_bytes: its size.
        precision: of the operators with weights.
        tensors: one line each: direction, name, type, shape.
        operators: count of each type.
        profiles: one line each.
        layers: of a plan: name, type and precision, from its inspector.
        memory: name and bytes.
        facts: the rest, by name.
    """

    kind: str
    file_bytes: int
    precision: str = ""
    tensors: list[dict[str, str]] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    layers: list[dict[str, str]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def inspect_file(path: Path) -> Inspection:
    """Describe a model file. Raises ModelFileError."""
    return _inspect_plan(path) if path.suffix == ".plan" else _inspect_onnx(path)


def _inspect_onnx(path: Path) -> Inspection:
    onnx = import_onnx()
    model = load_model(path)
    weights = {each.name for each in model.graph.initializer}
    found = Inspection("onnx", path.stat().st_size, precision_of(model))
    values = [("input", each) for each in model.graph.input if each.name not in weights]
    values += [("output", each) for each in model.graph.output]
    for direction, value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type)
        found.tensors.append({"direction": direction, "name": value.name, "type": dtype, "shape": str(dims)})
    found.operators = dict(Counter(node.op_type for node in model.graph.node).most_common())
    found.memory = {"weights": sum(len(onnx.numpy_helper.to_array(each).tobytes()) for each in model.graph.initializer)}
    found.facts = {
        "opset": ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in model.opset_import),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
    }
    return found


def _inspect_plan(path: Path) -> Inspection:
    """Read the manifest; with a GPU and the library also the plan itself."""
    known = manifest.read(path)
    found = Inspection("plan", path.stat().st_size, known.precision)
    found.profiles = [
        "; ".join(f"{name} {low} .. {high}, best at {best}" for name, (low, best, high) in shapes.items())
        for shapes in known.profiles
    ]
    is_whole = manifest.sha256(path.read_bytes()) == known.plan_sha256
    found.facts = {
        "built with": f"{known.library} {known.version}",
        "built for": known.device or "every GPU that the library supports",
        "hardware compatibility": known.compatibility,
        "source": known.source_name,
        "matches its manifest": "yes" if is_whole else "no: the file was changed",
        **known.settings,
    }
    try:
        _read_layers(path, known.library, found)
    except BackendUnavailableError as error:
        found.facts["layers"] = f"not read: {error}"
    return found


def _read_layers(path: Path, library_name: str, found: Inspection) -> None:
    from forebay_server.engines import open_device
    from forebay_server.engines.clock import MonotonicClock

    device = open_device("cuda", clock=MonotonicClock())  # first: without a driver TensorRT may crash
    library = libraries.load(library_name)
    trt_runtime, trt_engine = deserialize(library, path.read_bytes(), path, allows_host_code=False)
    try:
        found.memory = {"activations": activation_bytes(trt_engine)}
        for index in range(trt_engine.num_io_tensors):
            name = trt_engine.get_tensor_name(index)
            found.tensors.append(
                {
                    "direction": trt_engine.get_tensor_mode(name).name.lower(),
                    "name": name,
                    "type": trt_engine.get_tensor_dtype(name).name,
                    "shape": str(list(trt_engine.get_tensor_shape(name))),
                }
            )
        inspector = trt_engine.create_engine_inspector()
        text = inspector.get_engine_information(library.trt.LayerInformationFormat.JSON)
        found.layers = [_layer(each) for each in json.loads(text).get("Layers", [])]
        del inspector
    finally:
        del trt_engine, trt_runtime
        device.close()


def _layer(layer: Any) -> dict[str, str]:  # noqa: ANN401 - a name, or an object with details
    if not isinstance(layer, dict):
        return {"name": str(layer), "type": "", "precision": ""}
    outputs = layer.get("Outputs") or [{}]
    return {
        "name": str(layer.get("Name", "")),
        "type": str(layer.get("LayerType", "")),
        "precision": str(outputs[0].get("Format/Datatype", "")),
    }
