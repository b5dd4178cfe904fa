"""Generate code from protos/: `python -m tools.generate_wire [FOLDER]`, by default into this checkout.

`make proto` runs it in an environment of its own: the code must run on every protobuf from the compiler's on, so the
compiler is an old one (tests/heavy/wire/requirements-alone.txt, ADR 0101). Every .proto is compiled as a file of a
package, forebay.wire or, for the ONNX format, forebay_server.engines.onnx_wire, and so are those that it imports, so
that the generated modules import each other absolutely. They register in the pool of that package, not in protobuf's
own. A proto without a service gets no *_pb2_grpc module.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIRE, ONNX_WIRE = "forebay/wire", "forebay_server/engines/onnx_wire"
PLACES = {WIRE: "forebay/wire", ONNX_WIRE: "engines/onnx_wire"}
"""Package -> its folder in the repository: a link leads from forebay_server/engines to engines (ADR 0100)."""
# Text of the compiler -> its replacement, each exactly once in every *_pb2.py.
OWN_POOL = {
    "from google.protobuf import descriptor_pool as _descriptor_pool\n": "",
    "\n\nDESCRIPTOR = _descriptor_pool.Default().": "from {package} import POOL as _pool\n\n\nDESCRIPTOR = _pool.",
}


def proto_files(package: str = WIRE) -> list[Path]:
    """Return every .proto of a package."""
    every = sorted((ROOT / "protos").rglob("*.proto"))
    return [path for path in every if (path.parent.name == "onnx") == (package == ONNX_WIRE)]


def generate(out: Path) -> list[Path]:
    """Write the modules below `out` and return their paths, relative to it. Raises SystemExit if protoc fails."""
    return sorted(path for package in PLACES for path in _generate(package, out))


def _generate(package: str, out: Path) -> list[Path]:
    files, place = proto_files(package), Path(PLACES[package])
    with_service = [path for path in files if re.search(r"^service\s", path.read_text(), flags=re.MULTILINE)]
    names = [f"{package}/{path.name}" for path in files]
    service_names = [f"{package}/{path.name}" for path in with_service]
    made = [Path(name.removesuffix(".proto") + suffix) for name in names for suffix in ("_pb2.py", "_pb2.pyi")]
    made += [Path(name.removesuffix(".proto") + "_pb2_grpc.py") for name in service_names]
    (out / place).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as fresh:
        for path in files:
            (Path(folder) / path.name).write_text(with_own_imports(path.read_text(), package))
        source = f"-I{package}={folder}"
        _run(["protoc", source, f"--python_out={fresh}", f"--pyi_out={fresh}", *names])
        if service_names:
            _run(["protoc", source, f"--grpc_python_out={fresh}", *service_names])
        for path in made:
            code = (Path(fresh) / path).read_text()
            is_code = path.name.endswith("_pb2.py")
            (out / place / path.name).write_text(with_own_pool(code, path, package) if is_code else code)
    return [place / path.name for path in made]


def with_own_imports(proto: str, package: str) -> str:
    """Return a .proto that imports others of protos/ as files of the package; in protos/ they are named from there."""
    for path in proto_files(package):
        name = path.relative_to(ROOT / "protos").as_posix()
        proto = proto.replace(f'import "{name}";', f'import "{package}/{path.name}";')
    return proto


def with_own_pool(code: str, path: Path, package: str) -> str:
    """Return generated code that registers in the pool of its package. Raises SystemExit if it looks otherwise."""
    for written, wanted in OWN_POOL.items():
        if code.count(written) != 1:
            sys.exit(f"generate_wire: {path} has no single {written.strip()!r}: another compiler?")
        code = code.replace(written, wanted.format(package=package.replace("/", ".")))
    return code


def _run(arguments: list[str]) -> None:
    from grpc_tools import protoc  # of the environment that `make proto` makes

    if protoc.main(arguments) != 0:
        sys.exit("generate_wire: protoc failed, see above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.generate_wire", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT, help="folder to write below (default: the project)")
    generate(parser.parse_args().out)
