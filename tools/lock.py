"""Write requirements.lock and requirements-dev.lock from the versions installed in this environment.

`make lock` runs it. The locks hold exact versions without hashes: wheels differ between platforms and Python versions,
and a lock with the hashes of one of them would refuse the others. They name no index, so pip's own settings apply.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = ("pyproject.toml", "client/pyproject.toml")
HEADER = "# Written by `make lock` from pyproject.toml and the versions installed. Do not edit.\n"


def read_requirements() -> tuple[list[Requirement], list[Requirement]]:
    """Return the base requirements, the client's among them, and the dev requirements."""
    project, client = (tomllib.loads((ROOT / name).read_text())["project"] for name in PROJECTS)
    lines = [*client["dependencies"], *project["dependencies"]]
    base = [Requirement(line) for line in lines if not line.startswith(client["name"])]
    dev = [Requirement(line) for line in project["optional-dependencies"]["dev"]]
    return base, dev


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    if marker is None:
        return True
    environment = {key: str(value) for key, value in default_environment().items()}
    return any(marker.evaluate(environment | {"extra": extra}) for extra in ("", *extras))


def closure(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return `name -> version` of everything that `requirements` need, themselves included.

    Raises SystemExit if one is not installed, or not in a version that is asked for.
    """
    versions: dict[str, str] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        if not _applies(requirement, ()) and not requirement.extras:
            continue
        name = canonicalize_name(requirement.name)
        if name not in versions:
            versions[name] = _installed_version(requirement)
            waiting.extend(_needs(name, requirement.extras))
    return versions


def _installed_version(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        sys.exit(f"lock: {requirement.name} is not installed: pip install '{requirement}' first")
    if not requirement.specifier.contains(version, prereleases=True):
        sys.exit(f"lock: {requirement.name} {version} is installed, but {requirement} is asked for")
    return version


def _needs(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        if _applies(requirement, extras):
            requirement.marker = None  # decided here
            yield requirement


def _lines(versions: Mapping[str, str], markers: Mapping[str, str]) -> str:
    return "".join(f"{name}=={version}{markers.get(name, '')}\n" for name, version in sorted(versions.items()))


def main() -> None:
    """Write both files."""
    argparse.ArgumentParser(prog="python -m tools.lock", description=__doc__).parse_args()
    base, dev = read_requirements()
    markers = {str(canonicalize_name(r.name)): f" ; {r.marker}" for r in (*base, *dev) if r.marker is not None}
    base_versions = closure(base)
    dev_versions = {k: v for k, v in closure((*base, *dev)).items() if k not in base_versions}
    (ROOT / "requirements.lock").write_text(HEADER + _lines(base_versions, markers))
    (ROOT / "requirements-dev.lock").write_text(HEADER + "-r requirements.lock\n" + _lines(dev_versions, markers))
    print(f"{len(base_versions)} base and {len(dev_versions)} dev packages")


def read_lock(path: Path) -> dict[str, str]:
    """Return `name -> version` of one lock file."""
    return {
        canonicalize_name(match[1]): match[2]
        for match in re.finditer(r"^([\w.-]+)==([^\s;]+)", path.read_text(), flags=re.MULTILINE)
    }


if __name__ == "__main__":
    main()
