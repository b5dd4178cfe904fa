"""The parts of an image fit together without one being built: locks with hashes, and the files that are removed."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tools.image import finish
from tools.lock import read_lock
from tools.lock_image import EXTRAS, X86_ALONE

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


def test_a_server_has_no_load_tester():
    assert "hdrhistogram" not in read_lock(ROOT / "locks" / "cpu.txt")
    assert "hdrhistogram" in read_lock(ROOT / "locks" / "load.txt")
    assert {"load"} == X86_ALONE


def test_an_extra_adds_to_the_image_and_changes_nothing_in_it():
    base = read_lock(ROOT / "locks" / "cpu.txt")
    for extra in EXTRAS:
        assert not base.keys() & read_lock(ROOT / "locks" / f"{extra}.txt").keys()


def test_binary_packages_are_locked_for_both_architectures():
    found = entries(ROOT / "locks" / "cpu.txt")
    binary = ("grpcio", "numpy", "onnxruntime", "opencv-python-headless", "pydantic-core", "simplejpeg")
    assert [len(hashes) for name, hashes in found.items() if name.split("==")[0] in binary] == [2] * len(binary)


def test_the_dockerfile_installs_with_hashes_and_leaves_no_installer():
    installs = re.findall(r"/pip --python /opt/forebay/bin/python install ([^\n]*)", DOCKERFILE)
    assert len(installs) == 5
    unlocked = [line for line in installs if not line.startswith(("--require-hashes", "--no-deps /src/dist"))]
    assert [line.split('"')[1] for line in unlocked] == ["$TENSORRT"]
    assert "python3.13 -m venv --without-pip /opt/forebay" in DOCKERFILE


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


def test_the_list_of_parts_names_every_package_with_its_version():
    names = {part["name"] for part in finish.parts()["components"]}
    assert {"numpy", "onnxruntime", "grpcio", "pytest"} <= names
    assert finish.PARTS.is_relative_to(Path(sys.prefix))
