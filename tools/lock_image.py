"""Write locks/*.txt: the packages of an image with the hashes of their wheels, for x86-64 and aarch64.

`make image-locks` runs it; it needs `uv` (pip install uv) and an index, and installs nothing. `cpu` is the base
install, the others are extras of pyproject.toml on top of it, `setuptools` makes the wheels of this checkout. All
extras are resolved together first, so that any of them fit into one image. `tensorrt` has no lock: its libraries are
on NVIDIA's index only. Versions are those of requirements.lock and requirements-dev.lock where these have the package.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.lock import PROJECTS, read_lock

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
PYTHON = "3.13"  # of the image
GLIBC = "2_36"  # of Debian 12; a base with an older one finds no wheel for some hashes
MACHINES = ("x86_64", "aarch64")
EXTRAS = ("build", "cuda", "gpu-decode", "load", "nvml", "otel", "tensorrt-rtx", "torch", "track", "video")
UNLOCKED = {"dev", "tensorrt"}
X86_ALONE = {"load": "hdrhistogram has no wheel for aarch64"}
SOURCE_ALONE = "tensorrt-rtx-cu13"  # no wheel; a module that imports all of its bindings, which Forebay does itself
SETUPTOOLS = ["setuptools>=80"]
HEADER = f"# Written by `make image-locks` for Python {PYTHON} on x86-64 and aarch64. Do not edit.\n"

Found = dict[str, tuple[str, frozenset[str]]]
"""Package -> version and sha256 hashes of its wheels."""


def resolve(requirements: Iterable[str], constraints: Iterable[str], machine: str) -> Found:
    """Return the wheels that `requirements` need on `machine`, themselves included.

    Args:
        requirements: as in pyproject.toml.
        constraints: `name==version` of packages that may be among them.
        machine: as `uname -m` prints it.

    Raises:
        SystemExit: uv is missing, no index answers, or the requirements contradict each other.
    """
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        sys.exit("lock_image: uv is needed: pip install uv")
    with tempfile.TemporaryDirectory() as name:
        wanted, fixed, written = (Path(name) / file for file in ("in.txt", "constraints.txt", "pylock.toml"))
        wanted.write_text("\n".join(requirements))
        fixed.write_text("\n".join(constraints))
        command = [uv, "pip", "compile", "--quiet", "--no-config"]
        command += ["--only-binary", ":all:", "--no-binary", SOURCE_ALONE]
        command += ["--python-version", PYTHON, "--python-platform", f"{machine}-manylinux_{GLIBC}"]
        command += ["--constraint", str(fixed), "--output-file", str(written), str(wanted)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if ended.returncode:
            sys.exit(f"lock_image: {machine}: {ended.stderr[-2000:]}")
        packages = tomllib.loads(written.read_text())["packages"]
    return {
        str(canonicalize_name(item["name"])): (
            item["version"],
            frozenset(wheel["hashes"]["sha256"] for wheel in item["wheels"]),
        )
        for item in packages
        if item["name"] != SOURCE_ALONE
    }


def resolve_all(requirements: Iterable[str], constraints: Iterable[str], machines: tuple[str, ...] = MACHINES) -> Found:
    """Return what `resolve` finds for `machines`. Raises SystemExit where they differ in a version."""
    requirements, constraints = list(requirements), list(constraints)
    merged: Found = {}
    for machine in machines:
        for name, (version, hashes) in resolve(requirements, constraints, machine).items():
            known, others = merged.get(name, (version, frozenset()))
            if known != version:
                sys.exit(f"lock_image: {name} is {known} and, on {machine}, {version}")
            merged[name] = (version, others | hashes)
    return merged


def lines(found: Found, x86_alone_because: str = "") -> str:
    """Return the text of a lock; tools/image/install.py reads its second line."""
    text = HEADER + (f"# On {MACHINES[0]} alone: {x86_alone_because}.\n" if x86_alone_because else "")
    for name, (version, hashes) in sorted(found.items()):
        text += f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{value}" for value in sorted(hashes)) + "\n"
    return text


def requirements_of() -> tuple[list[str], dict[str, list[str]]]:
    """Return the base requirements, the client's among them, and those of each extra."""
    project, client = (tomllib.loads((ROOT / name).read_text())["project"] for name in PROJECTS)
    both = [*client["dependencies"], *project["dependencies"]]
    return [line for line in both if not line.startswith(client["name"])], project["optional-dependencies"]


def _together(base: list[str], extras: dict[str, list[str]]) -> list[str]:
    """Return `name==version` of a resolution in which the base and all extras agree."""
    tested = [
        f"{name}=={version}"
        for file in ("requirements.lock", "requirements-dev.lock")
        for name, version in read_lock(ROOT / file).items()
    ]
    all_of_them = [*base, *SETUPTOOLS, *(line for extra in EXTRAS for line in extras[extra])]
    found = resolve(all_of_them, tested, MACHINES[0])  # the one for which all extras have wheels
    return [f"{name}=={version}" for name, (version, _) in found.items()]


def main() -> None:
    """Write the files."""
    argparse.ArgumentParser(prog="python -m tools.lock_image", description=__doc__).parse_args()
    base, extras = requirements_of()
    versions = _together(base, extras)
    LOCKS.mkdir(exist_ok=True)
    cpu = resolve_all(base, versions)
    locks = {"cpu": cpu, "setuptools": resolve_all(SETUPTOOLS, versions)}
    for extra in EXTRAS:
        found = resolve_all([*base, *extras[extra]], versions, MACHINES[:1] if extra in X86_ALONE else MACHINES)
        locks[extra] = {name: value for name, value in found.items() if name not in cpu}
    for name, found in locks.items():
        (LOCKS / f"{name}.txt").write_text(lines(found, X86_ALONE.get(name, "")))
        print(f"locks/{name}.txt: {len(found)} packages")


if __name__ == "__main__":
    main()
