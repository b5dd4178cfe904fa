"""Finish the environment of an image: write its list of parts, remove the files that no server reads, compile the rest.

Runs in the build stage of the Dockerfile, by the environment's own interpreter, and needs nothing beside it. The same
input gives the same bytes.
"""

import argparse
import compileall
import json
import py_compile
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
PARTS = Path(sys.prefix) / "share" / "forebay" / "sbom.cdx.json"
# Patterns below site-packages, with the reason. MB of Python 3.13, x86-64.
UNREAD = {
    "onnxruntime/capi/libonnxruntime.so*": "the library for C programs, 35 MB; Python's has all of it once more",
    "onnxruntime/datasets": "examples",
    "numpy/**/tests": "8 MB",
    "numpy/f2py": "a compiler's front end",
    "numpy/_core/include": "for compilers",
    "numpy/_core/lib": "for compilers",
    "numpy/random/lib": "for compilers",
    "pygments*": "colours source code, for which no command asks rich; 9 MB",
    "psutil/tests": "tests",
    "**/*.pyi": "for type checkers",
    "**/*.pyx": "for compilers",
    "**/*.pxd": "for compilers",
    "**/*.pyc": "compiled below",
}
# Quantizing imports these; without the package onnx there is no quantizing.
UNREAD_WITHOUT_ONNX = {
    "onnxruntime/transformers": "converters of language models, 2 MB",
    "onnxruntime/tools": "converters for phones",
}
# Commands of libraries whose modules are gone, or that no server needs.
UNREAD_COMMANDS = ("activate*", "Activate*", "f2py", "numpy-config", "onnxruntime_test", "pygmentize")


def parts() -> dict[str, object]:
    """Return a list of the installed distributions in CycloneDX's format, version 1.6."""
    components = [
        {
            "type": "library",
            "name": found.name,
            "version": found.version,
            "purl": f"pkg:pypi/{found.name.lower()}@{found.version}",
            "licenses": [{"license": {"name": text}} for text in _licences(found)],
        }
        for found in sorted(metadata.distributions(path=[str(SITE)]), key=lambda found: found.name.lower())
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def _licences(found: metadata.Distribution) -> list[str]:
    given = [found.metadata[key] for key in ("License-Expression", "License") if key in found.metadata]
    text = next(iter(given), "")
    return [text.splitlines()[0][:80]] if text.strip() else []


def remove(folder: Path, patterns: Iterable[str]) -> int:
    """Remove the files and folders below `folder` that match a pattern; return the number of bytes."""
    removed = 0
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_dir():
                removed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                shutil.rmtree(path)
            elif path.is_file():
                removed += path.stat().st_size
                path.unlink()
    return removed


def main() -> None:
    """Finish the environment of the running interpreter."""
    argparse.ArgumentParser(prog="finish.py", description=__doc__).parse_args()
    PARTS.parent.mkdir(parents=True, exist_ok=True)
    PARTS.write_text(json.dumps(parts(), indent=1) + "\n")
    removed = 0 if (SITE / "onnx").is_dir() else remove(SITE, UNREAD_WITHOUT_ONNX)
    removed += remove(SITE, UNREAD) + remove(Path(sys.prefix) / "bin", UNREAD_COMMANDS)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # of the bytes alone, not of the time of the build
    if not compileall.compile_dir(SITE, quiet=1, invalidation_mode=mode):
        sys.exit("forebay: a module cannot be compiled")
    print(f"{removed / 1e6:.0f} MB removed; {PARTS} written")


if __name__ == "__main__":
    main()
