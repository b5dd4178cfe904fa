"""Finish the environment of an image: remove the files that no server reads, list the parts that remain, compile.

Runs in the build stage of the Dockerfile, by the environment's own interpreter, and needs `packaging`, which every
environment has. The same input gives the same bytes.
"""

import argparse
import compileall
import json
import py_compile
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

PACKAGE = "forebay"
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


# Names that older packages give their licence, and the expression of SPDX.
SPDX_OF_TEXTS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
SPDX_OF_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def parts(site: Path, base: Path | None, version: str) -> dict[str, object]:
    """Return the parts of the image in CycloneDX's format, version 1.6: the image, its Python and its Debian packages.

    Args:
        site: folder of the installed distributions.
        base: root of the base image's file system; None leaves its packages out.
        version: of the image.
    """
    components = [*_python_packages(site), *(() if base is None else _debian_packages(base))]
    image = {"type": "container", "bom-ref": "image", "name": PACKAGE, "version": version}
    licences = [{"license": {"id": "Apache-2.0"}}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**image, "licenses": licences}},
        "components": sorted(components, key=lambda component: str(component["purl"])),
    }


def _python_packages(site: Path) -> Iterator[dict[str, object]]:
    for found in metadata.distributions(path=[str(site)]):
        purl = f"pkg:pypi/{canonicalize_name(found.name)}@{quote(found.version, safe='.')}"
        component = {"type": "library", "bom-ref": purl, "name": found.name, "version": found.version, "purl": purl}
        yield component | {"licenses": [licence_of(found)]}


def licence_of(found: metadata.Distribution) -> dict[str, object]:
    """Return the licence as CycloneDX writes it: an expression of SPDX, else the name that the package gives."""
    texts = [found.metadata[key] for key in ("License-Expression", "License") if key in found.metadata]
    given = [text.strip() for text in texts if text.strip()]
    known = [
        SPDX_OF_CLASSIFIERS[each] for each in found.metadata.get_all("Classifier", ()) if each in SPDX_OF_CLASSIFIERS
    ]
    for text in (*given, *known):
        try:
            return {"expression": str(canonicalize_license_expression(SPDX_OF_TEXTS.get(text, text)))}
        except InvalidLicenseExpression:
            continue
    return {"license": {"name": given[0].splitlines()[0][:80] if given else "unknown"}}


def _debian_packages(base: Path) -> Iterator[dict[str, object]]:
    """Yield the packages of a base made from Debian; their licences are in its /usr/share/doc/*/copyright."""
    release = dict(
        line.replace('"', "").split("=", 1) for line in _text(base / "etc" / "os-release").splitlines() if "=" in line
    )
    name = release.get("ID", "debian")
    distribution = f"{name}-{release.get('VERSION_ID', 'unknown')}"
    for fields in _installed(base / "var" / "lib" / "dpkg"):
        package, version, architecture = (fields[key] for key in ("Package", "Version", "Architecture"))
        purl = f"pkg:deb/{name}/{package}@{quote(version, safe='.~-')}?arch={architecture}&distro={distribution}"
        yield {"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl}


def _installed(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the fields of each package of dpkg's status file, or of the files of an image without dpkg."""
    files = [folder / "status", *sorted((folder / "status.d").glob("*"))]
    for block in "\n\n".join(_text(file) for file in files).split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        status = fields.get("Status", "install ok installed")
        if {"Package", "Version", "Architecture"} <= fields.keys() and not status.endswith(
            ("config-files", "not-installed")
        ):
            yield fields


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def check_version(labelled: str, installed: str) -> None:
    """Raise SystemExit if the image's label would name another version than that of the package."""
    if labelled != installed:
        sys.exit(
            f"forebay: the label of the image says {labelled!r} and the package is {installed}: "
            f"set --build-arg VERSION={installed}, or leave VERSION out"
        )


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
    parser = argparse.ArgumentParser(prog="finish.py", description=__doc__)
    parser.add_argument("--version", required=True, help="of the image's label")
    parser.add_argument("--base", type=Path, help="root of the base's file system, for the list of parts")
    given = parser.parse_args()
    check_version(given.version, metadata.version(PACKAGE))
    removed = 0 if (SITE / "onnx").is_dir() else remove(SITE, UNREAD_WITHOUT_ONNX)
    removed += remove(SITE, UNREAD) + remove(Path(sys.prefix) / "bin", UNREAD_COMMANDS)
    listed = parts(SITE, given.base, given.version)
    PARTS.parent.mkdir(parents=True, exist_ok=True)
    PARTS.write_text(json.dumps(listed, indent=1) + "\n")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # of the bytes alone, not of the time of the build
    if not compileall.compile_dir(SITE, quiet=1, invalidation_mode=mode):
        sys.exit("forebay: a module cannot be compiled")
    print(f"{removed / 1e6:.0f} MB removed; {PARTS} written")


if __name__ == "__main__":
    main()
