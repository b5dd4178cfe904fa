"""The scripts that build images: which engine they take, and their words where it is missing. Engines are fakes."""

import os
import re
import shutil
import subprocess

import pytest

from tests.support.repository import ROOT

BASICS = ("sh", "git", "id", "dirname", "env", "cat", "make")
SHOW = 'echo "$(basename "$0")" "$@"; echo "buildkit=${DOCKER_BUILDKIT-}"'
ENGINES = {
    "docker": f'case "$1" in --version) echo "Docker version 28.2.2";; version) ;; *) {SHOW};; esac',
    "docker client": 'case "$1" in --version) echo "Docker version 28.2.2";; *) exit 1;; esac',
    "podman-docker": f'case "$1" in --version) echo "podman version 4.3.1";; version) ;; *) {SHOW};; esac',
    "podman": SHOW,
    "buildah": SHOW,
}


@pytest.fixture
def folder(tmp_path):
    """A PATH of its own, without engines."""
    for name in (*BASICS, "basename"):
        if (found := shutil.which(name)) is not None:
            (tmp_path / name).symlink_to(found)
    return tmp_path


def install(folder, *names):
    for name in names:
        path = folder / ("docker" if name.startswith(("docker", "podman-docker")) else name)
        path.write_text(f"#!/bin/sh\n{ENGINES.get(name, 'true')}\n")
        path.chmod(0o755)


def run(folder, *command, **environment):
    kept = {key: value for key, value in os.environ.items() if key not in {"ENGINE", "DOCKER_BUILDKIT"}}
    environment = {**kept, "PATH": str(folder), **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def build(folder, **environment):
    return run(folder, "tools/build_image.sh", "cpu", "forebay:cpu", "--no-cache", **environment)


@pytest.mark.parametrize(
    ("installed", "asked", "taken"),
    [
        (["docker", "podman", "buildah"], "", "docker"),
        (["docker client", "podman", "buildah"], "", "podman"),
        (["podman-docker", "podman"], "", "podman"),
        (["podman-docker", "podman"], "docker", "podman"),
        (["docker client", "buildah"], "", "buildah"),
        (["docker", "podman", "buildah"], "buildah", "buildah"),
    ],
)
def test_the_engine_that_works_is_taken(folder, installed, asked, taken):
    install(folder, *installed)
    ended = build(folder, ENGINE=asked)
    assert ended.returncode == 0, ended.stderr
    words, buildkit = ended.stdout.splitlines()
    assert words.startswith(f"{taken} build ")
    assert re.search(r"--target cpu --tag forebay:cpu --build-arg SOURCE_DATE_EPOCH=\d+ .* --no-cache \.$", words)
    assert ("--isolation chroot --timestamp" in words, buildkit) == (
        (False, "buildkit=1") if taken == "docker" else (True, "buildkit=")
    )


def test_the_time_of_a_build_may_be_given(folder):
    install(folder, "buildah")
    words = build(folder, SOURCE_DATE_EPOCH="1764288000").stdout
    assert "--build-arg SOURCE_DATE_EPOCH=1764288000 " in words
    assert "--timestamp 1764288000 " in words


@pytest.mark.parametrize(
    ("installed", "asked", "words"),
    [
        (["docker client"], "", "no docker engine answers, and podman and buildah are not installed: sudo apt-get"),
        (["docker"], "nerdctl", "ENGINE is 'nerdctl'; give docker, podman or buildah, or leave it out"),
        (["docker"], "buildah", "ENGINE is buildah, which is not installed"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line(folder, installed, asked, words):
    install(folder, *installed)
    ended = build(folder, ENGINE=asked)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"forebay: {words}")
    assert ended.stderr.count("\n") == 1


def test_testing_an_image_without_the_tools_fails_and_names_them(folder):
    install(folder, "buildah", "runc")
    (folder / "ready").touch()
    given = [f"READY={folder}/ready", "LOCKS=", "PYTEST=false"]
    ended = run(folder, "make", "test-image", *given)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == (
        "forebay: not installed: podman mmdebstrap; on Debian or Ubuntu: "
        "sudo apt-get install --no-install-recommends podman mmdebstrap"
    )


def test_the_test_of_the_image_and_its_command_name_the_same_tools():
    needed = re.search(r"need_image_tools\.sh (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert set(re.search(r"NEEDED = \((.*)\)", (ROOT / "tests/heavy/test_image.py").read_text())[1].split(", ")) == {
        f'"{name}"' for name in needed
    }


def test_the_commit_of_a_build_leaves_the_packages_in_the_cache():
    """An argument in front of a step is part of it: a new value runs the step, and all after it, once more."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = {stage.split("\n")[0]: stage for stage in re.split(r"^FROM .* AS ", dockerfile, flags=re.MULTILINE)[1:]}
    before, wheel = stages["build"].split("ARG SOURCE_DATE_EPOCH")
    assert "install.py cpu" in before
    assert "install.py --argument EXTRAS" in before
    assert wheel.count("RUN") == 1
    for name in ("cpu", "gpu"):
        assert not re.search(r"^(RUN|COPY)", stages[name].split("ARG REVISION")[1], flags=re.MULTILINE)
