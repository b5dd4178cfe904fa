"""Write locks/*.txt: the packages of an image with the hashes of their wheels, for x86-64 and aarch64.

`make image-locks` runs it; it needs an index, and installs nothing. `cpu` is the base install, the others are extras of
pyproject.toml on top of it, `setuptools` makes the wheels of this checkout. TensorRT has no lock: its packages come
from NVIDIA's index, which not every machine reaches. Versions are those of requirements.lock and requirements-dev.lock
where these have the package.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.lock import PROJECTS, read_lock

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
PYTHON = "3.13"  # of the image
GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5", "2_34", "2_31")
MACHINES = ("x86_64", "aarch64")
EXTRAS = ("build", "cuda", "load", "otel", "torch", "track", "video")
X86_ALONE = {"load"}  # hdrhistogram has no wheel for aarch64
HEADER = f"# Written by `make image-locks` for Python {PYTHON} on x86-64 and aarch64. Do not edit.\n"

Found = dict[str, tuple[str, set[str]]]


def resolve(requirements: list[str], constraints: Path, machine: str) -> Found:
    """Return `name -> (version, hashes)` of the wheels that pip would install on `machine`. Raises SystemExit."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    command += ["--only-binary=:all:", "--target", "unused", "--implementation", "cp", "--python-version", PYTHON]
    for version in GLIBC:
        command += ["--platform", f"manylinux_{version}_{machine}"]
    command += ["--platform", f"manylinux2014_{machine}", "--constraint", str(constraints), *requirements]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if ended.returncode:
        sys.exit(f"lock_image: {machine}: {ended.stderr[-2000:]}")
    return {
        canonicalize_name(item["metadata"]["name"]): (
            item["metadata"]["version"],
            {item["download_info"]["archive_info"]["hashes"]["sha256"]},
        )
        for item in json.loads(ended.stdout)["install"]
    }


def resolve_all(requirements: list[str], constraints: Path, machines: tuple[str, ...] = MACHINES) -> Found:
    """Return what `resolve` finds for `machines`. Raises SystemExit where they differ in a version."""
    merged: Found = {}
    for machine in machines:
        for name, (version, hashes) in resolve(requirements, constraints, machine).items():
            known, others = merged.get(name, (version, set()))
            if known != version:
                sys.exit(f"lock_image: {name} is {known} and, on {machine}, {version}")
            merged[name] = (version, others | hashes)
    return merged


def lines(found: Found) -> str:
    """Return the text of a lock."""
    text = HEADER
    for name, (version, hashes) in sorted(found.items()):
        text += f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{value}" for value in sorted(hashes)) + "\n"
    return text


def requirements_of() -> tuple[list[str], dict[str, list[str]]]:
    """Return the base requirements, the client's among them, and those of each extra."""
    project, client = (tomllib.loads((ROOT / name).read_text())["project"] for name in PROJECTS)
    both = [*client["dependencies"], *project["dependencies"]]
    return [line for line in both if not line.startswith(client["name"])], project["optional-dependencies"]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="python -m tools.lock_image", description=__doc__)
    parser.add_argument("--only", action="append", choices=(*EXTRAS, "cpu", "setuptools"), help="these alone")
    only = parser.parse_args().only
    base, extras = requirements_of()
    LOCKS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        for file in ("requirements.lock", "requirements-dev.lock"):
            constraints.writelines(f"{name}=={version}\n" for name, version in read_lock(ROOT / file).items())
        constraints.flush()
        wanted = {"cpu": base, "setuptools": ["setuptools>=80"]}
        wanted |= {extra: [*base, *extras[extra]] for extra in EXTRAS}
        cpu: Found = {}
        for name, requirements in wanted.items():
            if only and name not in (*only, "cpu"):
                continue
            machines = MACHINES[:1] if name in X86_ALONE else MACHINES
            found = resolve_all(requirements, Path(constraints.name), machines)
            if name == "cpu":
                cpu = found
            elif name != "setuptools":
                found = {package: value for package, value in found.items() if package not in cpu}
            (LOCKS / f"{name}.txt").write_text(lines(found))
            print(f"locks/{name}.txt: {len(found)} packages")


if __name__ == "__main__":
    main()
