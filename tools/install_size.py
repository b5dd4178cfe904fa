"""Install the base distribution into an empty environment and write its size by package to docs/install-size.md."""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".cache" / "install-size"
BUDGET_MB = 450
# Runs inside the environment that is measured.
MEASURE = """
import importlib.metadata as m, json
print(json.dumps({d.name: [d.version, sum(f.locate().stat().st_size for f in d.files or () if f.locate().is_file())]
                  for d in m.distributions()}))
"""
PAGE = """# Size of the base install

Measured by `make install-size`: an empty virtual environment on {where}, `requirements.lock` and the wheels
of this checkout, compiled byte code included. The budget is {budget} MB.

| package | version | MB |
| --- | --- | ---: |
{rows}
| **all of the above** | | **{total:.1f}** |

Left out: {left_out} and setuptools, which come with a virtual environment and which the service does not use.
"""


def copy_source(folder: Path, root: Path = ROOT) -> Path:
    """Copy what .dockerignore lets through, so that no build leaves anything in this checkout, or finds it there."""
    patterns = [line.rstrip("/") for line in (root / ".dockerignore").read_text().splitlines()]
    kept_out = [pattern.removeprefix("**/") for pattern in patterns if not pattern.startswith("!") and pattern != "*"]

    def ignore(parent: str, names: list[str]) -> set[str]:
        return {name for name in names if any((Path(parent) / name).match(pattern) for pattern in kept_out)}

    for name in (pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")):
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name, ignore=ignore, symlinks=True)
        else:
            shutil.copy2(root / name, folder / name)
    return folder


def install(environment: Path) -> Path:
    """Make `environment` with the base install and return its interpreter."""
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)  # noqa: S603
    python = environment / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", ROOT / "requirements.lock"], check=True)  # noqa: S603
    with tempfile.TemporaryDirectory() as folder:
        source, wheels = copy_source(Path(folder)), Path(folder) / "wheels"
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*build, "--wheel-dir", wheels, source / "client", source], check=True)  # noqa: S603
        subprocess.run([*pip, "--no-deps", *wheels.glob("*.whl")], check=True)  # noqa: S603
    return python


def measure(python: Path) -> dict[str, tuple[str, float]]:
    """Return `name -> (version, megabytes)` of everything installed beside `python`."""
    printed = subprocess.run([python, "-c", MEASURE], check=True, capture_output=True, text=True).stdout  # noqa: S603
    return {name: (version, size / 1e6) for name, (version, size) in json.loads(printed).items()}


def page(sizes: dict[str, tuple[str, float]]) -> str:
    """Return docs/install-size.md."""
    pip_version, pip_mb = sizes.pop("pip")
    sizes.pop("setuptools", None)  # of Python before 3.12
    rows = [
        f"| {name} | {version} | {size:.1f} |"
        for name, (version, size) in sorted(sizes.items(), key=lambda item: -item[1][1])
    ]
    return PAGE.format(
        where=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        budget=BUDGET_MB,
        rows="\n".join(rows),
        total=sum(size for _, size in sizes.values()),
        left_out=f"pip {pip_version} ({pip_mb:.1f} MB)",
    )


def main() -> None:
    """Measure, write the page, and fail over budget."""
    argparse.ArgumentParser(prog="python -m tools.install_size", description=__doc__).parse_args()
    sizes = measure(install(ENVIRONMENT))
    (ROOT / "docs" / "install-size.md").write_text(page(sizes))
    total = sum(size for _, size in sizes.values())
    print(f"{total:.1f} MB of {BUDGET_MB} MB, see docs/install-size.md")
    if total > BUDGET_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()
