"""The image forebay:cpu, built from the Dockerfile where no registry answers, and run as container platforms do.

Needs root and Debian's buildah, podman, runc and mmdebstrap. The first run makes the base and downloads the wheels into
.cache/image. `make test-image` runs all of it and fails where a tool is missing; the second build is left out of
`make test-all`, which skips this module there.
"""

import json
import os
import shutil
import subprocess

import pytest

from tests.support.repository import ROOT

NEEDED = ("buildah", "podman", "runc", "mmdebstrap")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="making a base needs root"),
]
TAG = f"localhost/forebay-test-{os.getpid()}:cpu"  # several checkouts may share one store of images
MOST_MB, MOST_COMPRESSED_MB = 400, 150
# As a platform that trusts no image: an unknown user of group 0, nothing to write but 64 MB, no capability. The limits
# are set because podman would ask for the highest, which a container within a container may not have.
AS_PLATFORMS_DO = (
    *("--network", "host", "--read-only"),
    *("--user", "12345:0", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp:size=64m,mode=1777", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),  # noqa: S108
)
HEALTH = ("forebay", "health", "--address", "unix:/tmp/forebay.sock")
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
GONE = ("pip", "setuptools", "pygments", "hdrh", "pytest", "onnxruntime.transformers", "numpy.tests")
PROGRAM = f"""
import importlib.util, json, os, pathlib, resource, subprocess
def ask(*words):
    return subprocess.run(["forebay", *words], capture_output=True, text=True)
before = resource.getrusage(resource.RUSAGE_CHILDREN)
ended = [ask("health", "--address", "127.0.0.1:9") for _ in range(10)]
after = resource.getrusage(resource.RUSAGE_CHILDREN)
site = pathlib.Path(importlib.util.find_spec("onnxruntime").origin).parent
def cpu_s(usage):
    return usage.ru_utime + usage.ru_stime
def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps({{
    "ids": [os.getuid(), os.getgid()],
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")],
    "health": sorted({{done.returncode for done in ended}}),
    "health_cpu_s": (cpu_s(after) - cpu_s(before)) / 10,
    "found": [name for name in {GONE!r} if is_there(name)],
    "libraries": sorted(path.name.partition(".")[0] for path in site.glob("capi/*.so*")),
    "parts": [part["name"] for part in json.load(open("/opt/forebay/share/forebay/sbom.cdx.json"))["components"]],
}}))
"""


def run(*command):
    words = [*map(str, command)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=840)
    assert ended.returncode == 0, f"{' '.join(words)} ended with {ended.returncode}:\n{ended.stderr}"
    return ended.stdout


def in_image(*words, options=()):
    return run(*PODMAN, "run", "--rm", *AS_PLATFORMS_DO, *options, TAG, *words)


@pytest.fixture(scope="module")
def image():
    run("tools/build_image_offline.sh", TAG)
    yield TAG
    run("buildah", "rmi", "--force", TAG)


def test_the_image_is_small(image, tmp_path):
    (described,) = json.loads(run("podman", "image", "inspect", image))
    archive = tmp_path / "image.tar"
    run("buildah", "push", "--quiet", image, f"oci-archive:{archive}")
    assert described["Size"] / 1e6 <= MOST_MB
    assert archive.stat().st_size / 1e6 <= MOST_COMPRESSED_MB


def test_the_image_describes_itself(image):
    (found,) = json.loads(run("podman", "image", "inspect", image))
    config = found["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["forebay"]
    assert config["Cmd"] == ["serve"]
    assert found["Healthcheck"]["Test"] == ["CMD", "forebay", "health"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(config["Labels"]["org.opencontainers.image.revision"]) == 40


def test_the_demo_runs_read_only_as_an_unknown_user_without_capabilities(image):
    report = json.loads(in_image("demo", "--json", "--seconds", "4"))
    assert (report["lost"], report["out_of_order"], report["errors"]) == (0, 0, [])
    assert report["results"] == report["frames_sent"] > 0
    assert report["frames_with_person"] > 0


def test_the_image_holds_what_a_server_needs_and_its_health_check_is_cheap(image):
    report = json.loads(in_image("-c", PROGRAM, options=["--entrypoint", "python"]))
    assert report["ids"] == [12345, 0]
    assert set(report["capabilities"]) == {"0" * 16}
    assert report["health"] == [69]
    assert report["health_cpu_s"] < 0.15  # 0.04 on an idle machine; with gRPC 0.3
    assert report["found"] == []
    assert report["libraries"] == ["libonnxruntime_providers_shared", "onnxruntime_pybind11_state"]
    assert {"forebay", "numpy", "onnxruntime"} <= set(report["parts"])


@pytest.mark.parametrize("user", ["12345:0", "54321:54321"], ids=["group-0", "no-group"])
def test_process_1_serves_and_ends_with_0_on_sigterm(image, user, tmp_path):
    """The cache folder is written where the group may, and is one warning where not."""
    name = f"forebay-test-{os.getpid()}"
    options = [word for word in AS_PLATFORMS_DO if word != "--read-only"]  # so that the group alone decides
    options[options.index("--user") + 1] = user
    words = ("serve", "--address", "127.0.0.1:0", "--uds", "/tmp/forebay.sock")  # noqa: S108
    command = [*PODMAN, "run", *options, "--name", name, image, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as container:
        try:
            assert json.loads(container.stdout.readline())["address"]
            healthy = run(*PODMAN, "exec", name, *HEALTH)
            assert healthy == "SERVING\n"
        finally:
            run(*PODMAN, "stop", "--time", "60", name)
            _, errors = container.communicate(timeout=60)
            run(*PODMAN, "rm", "--force", name)
    assert container.returncode == 0, errors
    warnings = [line for line in errors.splitlines() if "warning" in line]
    assert len(warnings) == (0 if user.endswith(":0") else 1), errors


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("no-such-command",), 2),
        (("serve", "--address", "0.0.0.0:0"), 2),
        (("serve", "--address", "127.0.0.1:0", "--model-repository", "/none"), 65),
        (("health", "--address", "127.0.0.1:9"), 69),
    ],
    ids=["usage", "open to all without TLS", "no models", "no server"],
)
def test_a_container_ends_with_the_exit_code_of_its_command(image, words, code):
    command = [*PODMAN, "run", "--rm", *AS_PLATFORMS_DO, image, *words]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code, ended.stderr


def digest(image, folder):
    """In the format of OCI: Docker's keeps the host name of the build, by chance, beside the same layers."""
    run("buildah", "push", "--quiet", "--format", "oci", image, f"oci:{folder}")
    return json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]


@pytest.mark.soak
def test_a_second_build_has_the_same_digest(image, tmp_path):
    again = f"{image}-again"
    run("tools/build_image_offline.sh", again, "--no-cache")
    try:
        assert digest(image, tmp_path / "first") == digest(again, tmp_path / "second")
    finally:
        run("buildah", "rmi", "--force", again)
