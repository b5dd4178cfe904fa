"""Every name of CUDA and TensorRT that our code uses exists in the real bindings, so that no stand-in can drift.

The bindings of TensorRT 10.16 and 11.4 are real wheels; the libraries below them are not to be had without NVIDIA's own
package index, so they are imported over stubs with the symbols that the linker asks for. Nothing is ever constructed.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from forebay_server.engines.foreign_memory import HANDLE_BYTES
from tests.support.api_use import ROOTS, read_use

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache" / "trt-bindings"
VERSIONS = ["10.16.1.11", "11.4.0.106"]
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "trt_runtime": "Runtime",
    "trt_engine": "ICudaEngine",
    "trt_context": "IExecutionContext",
    "inspector": "EngineInspector",
}
SOURCES = {
    "trt": sorted((ROOT / "engines" / "trt").glob("*.py")),
    "engine": [ROOT / "engines" / "engine_tensorrt.py"],
    "build": [ROOT / "engines" / "build" / f"{name}.py" for name in ("plans", "network", "inspection")],
}
PARSER_ERROR = ("desc", "node_operator", "node_name")

PROBE = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
wanted = json.load(sys.stdin)
missing = []
for owner, name in wanted:
    thing = trt
    for part in filter(None, (owner + "." + name).split(".")):
        if not hasattr(thing, part):
            missing.append(f"{owner}.{name}")
            break
        thing = getattr(thing, part)
print(json.dumps(missing))
"""


def wanted_names():
    """(class or empty, dotted name) of every use that is not guarded by hasattr."""
    files = [file for group in SOURCES.values() for file in group]
    use = read_use(files, ROOTS)
    names = {("", name) for name in use.required.get("trt", ()) if not name.startswith("__")}
    for variable, owner in CLASSES.items():
        names |= {(owner, name.split(".")[0]) for name in use.required.get(variable, ())}
    names |= {("ParserError", name) for name in PARSER_ERROR}
    names |= {("IProfiler", "report_layer_time")}
    names |= {("IProgressMonitor", name) for name in ("phase_start", "phase_finish", "step_complete")}
    return sorted(names)


def missing_in(module, environment):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module],
        input=json.dumps(wanted_names()),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def bindings_of(version):
    """Return a folder with the bindings of a release, downloaded once; skip where that is not possible."""
    folder = CACHE / version
    if not (folder / "tensorrt_bindings").is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE)]
        done = subprocess.run(
            [*command, f"tensorrt-cu13-bindings=={version}"], capture_output=True, text=True, timeout=300, check=False
        )
        wheels = sorted(CACHE.glob(f"tensorrt_cu13_bindings-{version}-*.whl"))
        if not wheels:
            pytest.skip(f"no bindings of {version} for this Python and platform: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(folder)
    return folder


def stub_libraries(folder, major):
    """Compile libraries that have the symbols and nothing else."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stub libraries (Debian, Ubuntu: apt install gcc)")
    source = folder / "stub.c"
    source.write_text("\n".join(f"void *{symbol}(void) {{ return 0; }}" for symbol in SYMBOLS))
    for name in LIBRARIES:
        soname = f"lib{name}.so.{major}"
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname), str(source)],
            check=True,
            timeout=60,
        )
    return folder


def test_the_names_are_found_in_our_source():
    names = {f"{owner}.{name}" for owner, name in wanted_names()}
    for expected in (
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.create_execution_context",
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        ".ExecutionContextAllocationStrategy.USER_MANAGED",
    ):
        assert expected in names


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_in_the_bindings_of_tensorrt(tmp_path, version):
    folder = bindings_of(version)
    stubs = stub_libraries(tmp_path, version.split(".")[0])
    missing = missing_in("tensorrt_bindings", {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(folder)})
    rtx_only = {".BuilderFlag.REQUIRE_USER_ALLOCATION"}
    assert set(missing) - rtx_only == set()


def test_every_name_is_in_tensorrt_rtx():
    pytest.importorskip("tensorrt_rtx")
    tensorrt_only = {".HardwareCompatibilityLevel", ".NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    assert set(missing_in("tensorrt_rtx", {})) - tensorrt_only == set()


@pytest.mark.parametrize(("module", "known"), [("runtime", "cudaMemcpyAsync"), ("driver", "cuMemGetAddressRange")])
def test_every_name_of_cuda_is_in_its_binding(module, known):
    binding = pytest.importorskip(f"cuda.bindings.{module}")
    files = [*(ROOT / "engines" / "cuda").glob("*.py"), ROOT / "engines" / "device_cuda.py"]
    names = read_use(files, {module}).required[module]
    assert known in names
    missing = []
    for name in names:
        thing = binding
        for part in name.split("."):
            thing = getattr(thing, part, None)
        if thing is None:
            missing.append(name)
    assert missing == []


def test_a_handle_is_filled_and_read_through_its_address():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    handle = runtime.cudaIpcMemHandle_t()
    ctypes.memmove(handle.getPtr(), bytes(range(HANDLE_BYTES)), HANDLE_BYTES)
    assert ctypes.string_at(handle.getPtr(), HANDLE_BYTES) == bytes(range(HANDLE_BYTES))


def test_the_errors_that_we_tell_apart_are_cudas():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    from forebay_server.engines.cuda import errors

    known = {each.name for each in runtime.cudaError_t}
    assert (errors.STICKY | errors.OUT_OF_MEMORY | errors.MISUSE) - known == set()


def test_a_machine_without_a_driver_is_refused_with_advice():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU")
    from forebay_server.engines import open_device
    from forebay_server.engines.clock import MonotonicClock
    from forebay_server.engines.errors import BackendUnavailableError

    with pytest.raises(BackendUnavailableError, match="install driver"):
        open_device("cuda", clock=MonotonicClock())
