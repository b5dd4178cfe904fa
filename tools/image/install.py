"""Install packages into the environment of an image: those of locks/ by their hashes, or one that has no lock.

    install.py cpu
    install.py --argument EXTRAS otel,video
    install.py --argument TENSORRT "tensorrt>=10.3"

Runs in the build stage of the Dockerfile, where pip is, and needs nothing beside it. Output of a failure: one line with
the cause and the build argument to set; exit code 1.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).resolve().parent.parent.parent / "locks"
ENVIRONMENT = "/opt/forebay/bin/python"
# Patterns in pip's log, the most telling first, and the cause. The order matters: pip reports an index that is out of
# reach and one without the package by the same last lines.
CAUSES = {
    r"wheel_stub|placeholder package": "its source package cannot fetch the wheel from NVIDIA's index",
    r"DO NOT MATCH THE HASHES": "the index offers another file than the lock",
    r"is not a supported wheel": "the file is a wheel for another processor, system or Python",
    r"CERTIFICATE_VERIFY_FAILED|SSLError": "the index shows a certificate that the build does not trust",
    r"not a trusted or secure host": "the index does not speak https",
    r"Retrying \(|NewConnectionError|Timeout|NameResolutionError|Could not fetch URL": "the index cannot be reached",
    r"ResolutionImpossible|conflicting dependencies": "it needs other versions of packages than the image has",
    r"Invalid requirement": "it is neither a lock nor a package",
    r"No matching distribution|Could not find a version": "the index has no wheel of it for {python} on {machine}",
    r"metadata-generation-failed|[Ff]ailed (?:to )?build": "its source package cannot be built",
}
FOR_LOCKS = "set --build-arg PIP_INDEX_URL to a whole copy of PyPI, or PIP_FIND_LINKS to a folder with the wheels"
FOR_TENSORRT = (
    "set --build-arg PIP_EXTRA_INDEX_URL=https://pypi.nvidia.com or a copy of it, TENSORRT to another version, "
    "or TENSORRT=tensorrt-rtx, which PyPI has"
)
_MOST_CHARACTERS = 300


class InstallError(Exception):
    """One line: the cause and the build argument to set."""


def cause_of(log: str) -> str:
    """Return why pip failed, in one line: a cause of CAUSES, else pip's last words."""
    for pattern, cause in CAUSES.items():
        if re.search(pattern, log):
            return cause.format(python=f"Python {platform.python_version()}", machine=platform.machine())
    words = [line for line in log.splitlines() if line.strip()]
    return "pip: " + (words[-1].strip()[:_MOST_CHARACTERS] if words else "no output")


def lock_of(name: str, argument: str) -> Path:
    """Return the lock of an extra. Raises InstallError."""
    path = LOCKS / f"{name}.txt"
    if path.is_file() and re.fullmatch(r"[\w-]+", name):
        return path
    known = ", ".join(sorted(lock.stem for lock in LOCKS.glob("*.txt") if lock.stem not in {"cpu", "setuptools"}))
    hint = "TensorRT is in the target gpu; " if name == "tensorrt" else ""
    raise InstallError(f"there is no lock {name!r}: {hint}set --build-arg {argument} to some of {known}")


def check_machine(lock: Path, machine: str) -> None:
    """Raise InstallError for a lock that says that it has no wheels for `machine`."""
    found = re.search(r"^# On (\S+) alone\b", lock.read_text(), flags=re.MULTILINE)
    if found and found[1] != machine:
        raise InstallError(
            f"locks/{lock.name} is for {found[1]} alone, and this is {machine}: "
            f"leave {lock.stem} out of --build-arg EXTRAS"
        )


def pip(words: list[str], environment: str) -> str:
    """Run pip for the Python at `environment` and return its log. Raises subprocess.CalledProcessError with the log."""
    command = [sys.executable, "-m", "pip", "--no-input", "--python", environment, *words]
    output = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout
    print(output[output.rfind("Successfully installed") :] if words[0] == "install" else "", end="", flush=True)
    return output


def install_locked(name: str, argument: str, environment: str) -> None:
    """Install the packages of a lock. Raises InstallError."""
    lock = lock_of(name, argument)
    check_machine(lock, platform.machine())
    try:
        pip(["install", "--require-hashes", "--requirement", str(lock)], environment)
    except subprocess.CalledProcessError as error:
        raise InstallError(f"locks/{lock.name} cannot be installed: {cause_of(error.stdout)}: {FOR_LOCKS}") from None


def install_unlocked(requirement: str, environment: str) -> None:
    """Install a package without hashes, and change no package that is there. Raises InstallError."""
    listed = pip(["list", "--disable-pip-version-check", "--format", "json"], environment)
    installed = json.loads(next(line for line in listed.splitlines() if line.startswith("[")))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{each['name']}=={each['version']}\n" for each in installed)
        constraints.flush()
        try:
            pip(["install", "--constraint", constraints.name, requirement], environment)
        except subprocess.CalledProcessError as error:
            raise InstallError(f"{requirement} cannot be installed: {cause_of(error.stdout)}: {FOR_TENSORRT}") from None


def main() -> None:
    """Install what the command line names."""
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__)
    parser.add_argument("names", help="locks, comma-separated; for TENSORRT a lock or a package")
    parser.add_argument("--argument", default="EXTRAS", help="the build argument that gave the names")
    parser.add_argument("--into", default=ENVIRONMENT, help="the Python of the environment")
    given = parser.parse_args()
    try:
        if given.argument == "TENSORRT" and not (LOCKS / f"{given.names}.txt").is_file():
            install_unlocked(given.names, given.into)
            return
        for name in filter(None, (each.strip() for each in given.names.split(","))):
            install_locked(name, given.argument, given.into)
    except InstallError as error:
        sys.exit(f"forebay: {error}")


if __name__ == "__main__":
    main()
