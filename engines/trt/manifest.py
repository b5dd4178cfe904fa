"""A plan's manifest: the source, the library and the GPU of its build. Pure.

A plan runs only with the library version and on the GPU that it was built for, and the file itself does not state them
reliably. So the builder writes `<plan>.json` beside it, and an engine trusts a plan only if the manifest matches.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay_server.engines.errors import ModelFileError

FORMAT = 1

Shapes = dict[str, list[list[int]]]
"""Of one profile: input name -> [min, opt, max] shape."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module.

    Attributes:
        plan_sha256: of the plan file.
        library: `tensorrt` or `tensorrt-rtx`.
        version: of the library.
        device: name of the GPU, or empty for one that was built without a GPU (TensorRT-RTX).
        compute_capability: as in `9.0`; empty for the same builds.
        compatibility: `none`, or the hardware compatibility level that widens the two above.
        is_version_compatible: whether later releases of the library may run it.
        source_name: file name of the ONNX model.
        source_sha256: of that file.
        precision: `fp32`, `fp16` or `int8`, as the source is typed.
        profiles: in the plan's order.
        settings: the builder's, for people.
    """

    plan_sha256: str
    library: str
    version: str
    device: str
    compute_capability: str
    compatibility: str
    is_version_compatible: bool
    source_name: str
    source_sha256: str
    precision: str
    profiles: list[Shapes] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def manifest_path(plan: Path) -> Path:
    """Return the path of a plan's manifest."""
    return plan.with_name(plan.name + ".json")


def sha256(data: bytes) -> str:
    """Return the hash used in manifests."""
    return hashlib.sha256(data).hexdigest()


def write(manifest: Manifest, plan: Path) -> Path:
    """Write a plan's manifest."""
    path = manifest_path(plan)
    path.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(manifest)}, indent=1) + "\n")
    return path


def read(plan: Path) -> Manifest:
    """Read a plan's manifest. Raises ModelFileError if there is none, or it is not one."""
    path = manifest_path(plan)
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelFileError(
            f"{plan}: no manifest ({path.name}) beside it: build the plan with `forebay engine build`, or set option "
            "on_mismatch to ignore if you trust it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not a manifest: {error}") from error
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise ModelFileError(f"{path}: not a manifest of format {FORMAT}: build the plan anew")
    return _from_fields(path, fields)


def _from_fields(path: Path, fields: dict[str, Any]) -> Manifest:
    expected = {each.name for each in dataclasses.fields(Manifest)}
    if set(fields) != expected:
        raise ModelFileError(f"{path}: fields {sorted(set(fields) ^ expected)} are missing or unknown: build it anew")
    return Manifest(**fields)


def mismatches(manifest: Manifest, plan: bytes, library: str, version: str, device: str, capability: str) -> list[str]:
    """Return the mismatches, each in words; empty if the plan may be trusted."""
    found = []
    if sha256(plan) != manifest.plan_sha256:
        found.append("the file is not the one that was built (SHA-256 differs)")
    if library != manifest.library:
        found.append(f"it was built with {manifest.library}, this is {library}")
    elif version != manifest.version and not manifest.is_version_compatible:
        found.append(f"it was built with {library} {manifest.version}, this is {version}")
    if manifest.device and manifest.compatibility == "none" and device != manifest.device:
        found.append(f"it was built for {manifest.device}, this is {device}")
    if (
        manifest.compute_capability
        and manifest.compatibility == "same_compute_capability"
        and capability != manifest.compute_capability
    ):
        found.append(f"it was built for compute capability {manifest.compute_capability}, this is {capability}")
    return found
