"""The parts of an image fit together without one being built: locks with hashes, and the files that are removed."""

import re

import pytest
from packaging.requirements import Requirement

import forebay
from tests.support.repository import ROOT
from tools.image import finish
from tools.lock import read_lock
from tools.lock_image import EXTRAS, SOURCE_ALONE, UNLOCKED, X86_ALONE, requirements_of

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def entries(lock):
    """Name and version of each package, with its hashes."""
    text = lock.read_text().replace(" \\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.split(" ")[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})(?:\s|$)", line) for line in lines}


def test_there_is_a_lock_for_the_image_and_each_extra():
    assert {lock.stem for lock in LOCKS} == {"cpu", "setuptools", *EXTRAS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_has_a_hash_for_each_machine_and_no_index(lock):
    found = entries(lock)
    assert found
    assert all(hashes for hashes in found.values())
    assert not re.search(r"https?:|file:|index", lock.read_text())


def test_the_image_has_the_versions_that_are_tested():
    image, tested = read_lock(ROOT / "locks" / "cpu.txt"), read_lock(ROOT / "requirements.lock")
    assert image == tested


def test_the_extras_have_the_versions_that_are_tested():
    tested = read_lock(ROOT / "requirements-dev.lock")
    for extra in EXTRAS:
        image = read_lock(ROOT / "locks" / f"{extra}.txt")
        assert {name: image[name] for name in image.keys() & tested} == {
            name: tested[name] for name in image.keys() & tested
        }


def test_a_server_has_no_load_tester():
    assert "hdrhistogram" not in read_lock(ROOT / "locks" / "cpu.txt")
    assert "hdrhistogram" in read_lock(ROOT / "locks" / "load.txt")
    assert set(X86_ALONE) == {"load"}
    assert "\n# On x86_64 alone: " in (ROOT / "locks" / "load.txt").read_text()


def test_every_requirement_of_pyproject_is_locked_in_a_version_that_it_allows():
    base, extras = requirements_of()
    assert set(extras) == {*EXTRAS, *UNLOCKED}
    cpu = read_lock(ROOT / "locks" / "cpu.txt")
    for name, lines in {"cpu": base, **{extra: extras[extra] for extra in EXTRAS}}.items():
        locked = cpu | read_lock(ROOT / "locks" / f"{name}.txt")
        for requirement in map(Requirement, lines):
            if requirement.name == SOURCE_ALONE:
                assert {f"{SOURCE_ALONE}-bindings", f"{SOURCE_ALONE}-libs"} <= locked.keys()
                requirement.name += "-libs"
            assert requirement.specifier.contains(locked[requirement.name], prereleases=True), requirement


def test_any_extras_fit_into_one_image():
    together = {}
    for lock in LOCKS:
        for name, version in read_lock(lock).items():
            assert together.setdefault(name, version) == version, f"{name} in {lock.name}"
    assert together["cuda-bindings"] == read_lock(ROOT / "locks" / "torch.txt")["cuda-bindings"]


def test_an_extra_adds_to_the_image_and_changes_nothing_in_it():
    base = read_lock(ROOT / "locks" / "cpu.txt")
    for extra in EXTRAS:
        assert not base.keys() & read_lock(ROOT / "locks" / f"{extra}.txt").keys()


BINARY = {
    "cpu": ("grpcio", "numpy", "onnxruntime", "opencv-python-headless", "pydantic-core", "simplejpeg"),
    "cuda": ("cuda-bindings",),
    "gpu-decode": ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-nvjpeg"),
    "tensorrt-rtx": ("cuda-bindings", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"),
    "torch": ("cuda-bindings", "nvidia-cublas", "nvidia-cudnn-cu13", "torch", "triton"),
    "build": ("ml-dtypes", "onnx"),
    "video": ("av",),
}


@pytest.mark.parametrize("lock", BINARY)
def test_binary_packages_are_locked_for_both_architectures(lock):
    found = {name.split("==")[0]: hashes for name, hashes in entries(ROOT / "locks" / f"{lock}.txt").items()}
    assert all(len(found[name]) >= 2 for name in BINARY[lock])


def test_the_dockerfile_installs_with_hashes_and_leaves_no_installer():
    installs = re.findall(r"bin/python tools/image/install\.py ([^\n]*?)(?: \\)?\n", DOCKERFILE)
    assert installs == [
        "--into /opt/build/bin/python setuptools",
        "cpu",
        '--argument EXTRAS "$EXTRAS"',
        "cuda",
        '--argument TENSORRT "$TENSORRT"',
    ]
    assert re.findall(r"/pip --python \S+ install ([^\n]*)", DOCKERFILE) == ["--no-deps /src/dist/*.whl \\"]
    assert "python3.13 -m venv --without-pip /opt/forebay" in DOCKERFILE


def test_the_gpu_image_asks_for_the_drivers_video_decoder():
    (asked,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", DOCKERFILE)
    assert set(asked.split(",")) == {"compute", "utility", "video"}


def test_the_page_names_every_lock_that_may_be_an_extra():
    page = (ROOT / "docs" / "container.md").read_text()
    (names,) = re.findall(r"\| `EXTRAS` \| none \| extras, comma-separated: (.*?) \|", page)
    assert sorted(names.split(", ")) == sorted(EXTRAS)


def test_the_label_has_the_version_of_the_package():
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, flags=re.MULTILINE) == [forebay.__version__]
    assert DOCKERFILE.count('org.opencontainers.image.version="${VERSION}"') == 2
    assert DOCKERFILE.count('finish.py --version "$VERSION"') == 2


def test_the_dockerfile_needs_no_image_but_its_base():
    assert "# syntax=" not in DOCKERFILE
    sources = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert set(sources) - set(stages) == {"scratch", "${BASE}", "${BUILD_BASE}"}


def test_what_no_server_reads_is_removed_and_nothing_else(tmp_path):
    gone = ["numpy/lib/tests/a.py", "numpy/tests/b.py", "pygments/c.py", "cv2/x.pyi"]
    gone += ["onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/transformers/t/u.py"]
    kept = ["numpy/core.py", "onnxruntime/capi/libonnxruntime_providers_shared.so", "onnxruntime/quantization/q.py"]
    kept += ["onnxruntime/capi/onnxruntime_pybind11_state.so", "forebay_server/py.typed"]
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345")
    assert finish.remove(tmp_path, {**finish.UNREAD, **finish.UNREAD_WITHOUT_ONNX}) == 5 * len(gone)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert finish.remove(tmp_path, {**finish.UNREAD, **finish.UNREAD_WITHOUT_ONNX}) == 0
