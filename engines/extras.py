"""Install hints for missing parts. The names are those of pyproject.toml; a test compares."""

from importlib import metadata
from pathlib import Path

DISTRIBUTION = "forebay"
CLIENT = "forebay-client"
EXTRAS = ("build", "cuda", "gpu-decode", "load", "nvml", "otel", "tensorrt", "tensorrt-rtx", "torch", "track", "video")


def install_hint(extra: str) -> str:
    """Return the command that installs an extra: of the running checkout, otherwise its packages by name.

    Raises KeyError for an extra that pyproject.toml does not have.
    """
    if extra not in EXTRAS:
        raise KeyError(extra)
    needed = [] if _is_checkout() else packages_of(extra)
    return "pip install " + (" ".join(f"'{package}'" for package in needed) or f"{_client()}'.[{extra}]'")


def packages_of(extra: str) -> list[str]:
    """Return the requirements of an extra, from the installed distribution; empty if there is none."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    wanted = f'extra == "{extra}"'
    return [
        requirement.strip() for requirement, _, marker in (line.partition(";") for line in lines) if wanted in marker
    ]


def _client() -> str:
    """Return the client of the checkout, if it is not installed: the server needs it, of the same version."""
    try:
        metadata.version(CLIENT)
    except metadata.PackageNotFoundError:
        return "./client "
    return ""


def _is_checkout() -> bool:
    return (Path(__file__).resolve().parent.parent / "pyproject.toml").is_file()
