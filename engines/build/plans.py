"""ONNX to a TensorRT or TensorRT-RTX plan, with its manifest.

The network is strongly typed: precision is that of the ONNX model (engines/build/precision makes FP16 and INT8 models).
Plans are built with one stream (max_aux_streams=0), so that the executions of an instance may share one activation
memory and be captured as graphs.

TensorRT needs the GPU that the plan is for; TensorRT-RTX builds without one, for every GPU that it supports.
"""
# ruff: noqa: ANN401 - the libraries have no stubs

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay_server.engines.build import profiles
from forebay_server.engines.build.network import parse_network, precision_of
from forebay_server.engines.build.onnx_file import load_model
from forebay_server.engines.build.profiles import Rows
from forebay_server.engines.errors import BackendUnavailableError, ModelFileError
from forebay_server.engines.trt import library as libraries
from forebay_server.engines.trt.library import Library
from forebay_server.engines.trt.manifest import Manifest, Shapes, sha256, write

Progress = Callable[[str, int, int], None]
"""Called with (phase, step done, steps of the phase). Thread: any of the builder's."""

COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Settings of a build.

    Attributes:
        library: `auto`, `tensorrt` or `tensorrt-rtx`.
        max_batch: most rows of an execution; the default profiles follow from it.
        rows: profiles, if not the default ones.
        workspace_mib: scratch memory that a layer may use while running.
        optimization_level: 0 (fast build) to 5 (fast plan).
        compatibility: one of COMPATIBILITY; TensorRT only.
        is_version_compatible: let later releases run it; TensorRT only, slower.
        timing_cache: file to start from and to update.
    """

    library: str = "auto"
    max_batch: int = 8
    rows: tuple[Rows, ...] = ()
    workspace_mib: int = 1024
    optimization_level: int = 3
    compatibility: str = "none"
    is_version_compatible: bool = False
    timing_cache: Path | None = None


def build_plan(
    source: Path, output: Path, settings: BuildSettings, progress: Progress = lambda _phase, _done, _all: None
) -> Manifest:
    """Build a plan and write it with its manifest.

    Raises:
        BackendUnavailableError: no TensorRT, or none that can build here.
        ModelFileError: the model cannot be built; unsupported operators are named.
    """
    model = load_model(source)
    library = libraries.load(settings.library)
    mark = library.log.mark()
    try:
        builder = library.trt.Builder(library.logger)
    except (TypeError, RuntimeError) as error:  # pybind: factory function returned nullptr
        raise BackendUnavailableError(
            f"{library.name} cannot build here: {library.errors_of(mark)}: it needs the GPU that the plan is for "
            f"(TensorRT-RTX builds without one): {error}"
        ) from error
    network, parser = parse_network(library, builder, source)
    shapes = _profiles(library, network, settings)
    config = _configure(library, builder, settings, shapes, progress)
    plan = _serialize(library, builder, network, config, source, settings)
    del parser  # owns the weights that the network refers to
    _save_timing_cache(config, settings.timing_cache)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(plan)
    manifest = _manifest(library, plan, source, precision_of(model), shapes, settings)
    write(manifest, output)
    return manifest


def rebuild(path: Path, manifest: Manifest, library: Library) -> bytes:
    """Build a plan anew from the ONNX file that its manifest names, which must lie beside it unchanged."""
    source = path.parent / manifest.source_name
    if not source.is_file():
        raise ModelFileError(f"{path}: cannot be rebuilt: {manifest.source_name} is not beside it")
    if sha256(source.read_bytes()) != manifest.source_sha256:
        raise ModelFileError(
            f"{path}: cannot be rebuilt: {manifest.source_name} is not the file that it was built from"
        )
    rows = tuple(_rows_of(shapes) for shapes in manifest.profiles)
    settings = BuildSettings(
        library=library.name,
        rows=tuple(each for each in rows if each is not None),
        workspace_mib=int(manifest.settings["workspace_mib"]),
        optimization_level=int(manifest.settings["optimization_level"]),
        compatibility=manifest.compatibility,
        is_version_compatible=manifest.is_version_compatible,
    )
    build_plan(source, path, settings)
    return path.read_bytes()


def _rows_of(shapes: Shapes) -> Rows | None:
    for low, best, high in shapes.values():
        return Rows(low[0], best[0], high[0])
    return None


def _profiles(library: Library, network: Any, settings: BuildSettings) -> list[Shapes]:
    inputs = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise ModelFileError(f"input {tensor.name!r} is a shape: export the model without shape inputs")
        inputs[tensor.name] = tuple(tensor.shape)
    if not any(shape and shape[0] < 0 for shape in inputs.values()):
        for shape in inputs.values():
            profiles.shapes_of(Rows(1, 1, 1), {"input": shape})
        return []
    del library
    rows = settings.rows or profiles.default_rows(settings.max_batch)
    return [profiles.shapes_of(each, inputs) for each in rows]


def _configure(
    library: Library,
    builder: Any,
    settings: BuildSettings,
    shapes: list[Shapes],
    progress: Progress,
) -> Any:
    trt = library.trt
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * _MIB)
    config.builder_optimization_level = settings.optimization_level
    config.max_aux_streams = 0
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = make_monitor(trt, progress)
    _set_compatibility(trt, config, settings)
    if library.name == "tensorrt-rtx":
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # otherwise Forebay's own stream capture is refused
    elif hasattr(config, "create_timing_cache"):
        stored = settings.timing_cache
        data = stored.read_bytes() if stored is not None and stored.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(data), False)  # noqa: FBT003 - ignore_mismatch
    for each in shapes:
        profile = builder.create_optimization_profile()
        for name, (low, best, high) in each.items():
            profile.set_shape(name, low, best, high)
        if config.add_optimization_profile(profile) < 0:
            raise ModelFileError(f"the builder refuses the profile {each}")
    return config


def _set_compatibility(trt: Any, config: Any, settings: BuildSettings) -> None:
    if settings.compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, settings.compatibility.upper(), None)
        if level is None:
            raise ModelFileError(f"this release has no hardware compatibility {settings.compatibility!r}")
        config.hardware_compatibility_level = level
    if settings.is_version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def make_monitor(trt: Any, progress: Progress) -> Any:
    """Return a progress monitor that calls `progress`. Its methods are called from build threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Counts steps by phase."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            """A phase begins."""
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """A phase has ended."""
            steps = self._steps.get(phase_name, 0)
            progress(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Go on."""
            progress(phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

    return Monitor()


def _serialize(
    library: Library,
    builder: Any,
    network: Any,
    config: Any,
    source: Path,
    settings: BuildSettings,
) -> bytes:
    mark = library.log.mark()
    blob = builder.build_serialized_network(network, config)
    if blob is None:
        raise ModelFileError(
            f"{source}: {library.name} cannot build it: {library.errors_of(mark)} (workspace "
            f"{settings.workspace_mib} MiB; more with --workspace)"
        )
    return bytes(memoryview(blob))


def _save_timing_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache() if path is not None and hasattr(config, "get_timing_cache") else None
    if path is not None and cache is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(memoryview(cache.serialize())))


def _manifest(
    library: Library, plan: bytes, source: Path, precision: str, shapes: list[Shapes], settings: BuildSettings
) -> Manifest:
    device, capability = _present_gpu() if library.name == "tensorrt" else ("", "")
    return Manifest(
        plan_sha256=sha256(plan),
        library=library.name,
        version=library.version,
        device=device,
        compute_capability=capability,
        compatibility=settings.compatibility,
        is_version_compatible=settings.is_version_compatible,
        source_name=source.name,
        source_sha256=sha256(source.read_bytes()),
        precision=precision,
        profiles=shapes,
        settings={
            "workspace_mib": str(settings.workspace_mib),
            "optimization_level": str(settings.optimization_level),
        },
    )


def _present_gpu() -> tuple[str, str]:
    from forebay_server.engines.cuda.calls import list_gpus

    gpu = list_gpus()[0]
    return gpu.name, ".".join(str(part) for part in gpu.compute_capability)
