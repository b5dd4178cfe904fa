"""Generate forebay/wire from protos/: `python -m tools.generate_wire [FOLDER]`, by default into this checkout.

`make proto` runs it in an environment of its own: the code must run on every protobuf from the compiler's on, so the
compiler is an old one (tests/heavy/wire/requirements-alone.txt, ADR 0101). Every .proto is compiled as a file of the
package forebay.wire, and so are those that it imports, so that the generated modules import each other absolutely. What
they register goes to the pool of forebay.wire, not to protobuf's own. A proto without a service gets no *_pb2_grpc
module.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "forebay/wire"
# What the compiler writes -> what stands there, each exactly once in every *_pb2.py.
OWN_POOL = {
    "from google.protobuf import descriptor_pool as _descriptor_pool\n": "",
    "\n\nDESCRIPTOR = _descriptor_pool.Default().": "from forebay.wire import POOL as _pool\n\n\nDESCRIPTOR = _pool.",
}


def proto_files() -> list[Path]:
    """Return every .proto of the project."""
    return sorted((ROOT / "protos").rglob("*.proto"))


def generate(out: Path) -> list[Path]:
    """Write the modules below `out` and return their paths, relative to it. Raises SystemExit if protoc fails."""
    out.mkdir(parents=True, exist_ok=True)
    with_service = [path for path in proto_files() if re.search(r"^service\s", path.read_text(), flags=re.MULTILINE)]
    names = [f"{PACKAGE}/{path.name}" for path in proto_files()]
    service_names = [f"{PACKAGE}/{path.name}" for path in with_service]
    with tempfile.TemporaryDirectory() as folder:
        for path in proto_files():
            (Path(folder) / path.name).write_text(with_own_imports(path.read_text()))
        source = f"-I{PACKAGE}={folder}"
        _run(["protoc", source, f"--python_out={out}", f"--pyi_out={out}", *names])
        _run(["protoc", source, f"--grpc_python_out={out}", *service_names])
    made = [Path(name.removesuffix(".proto") + suffix) for name in names for suffix in ("_pb2.py", "_pb2.pyi")]
    made += [Path(name.removesuffix(".proto") + "_pb2_grpc.py") for name in service_names]
    for path in made:
        if path.name.endswith("_pb2.py"):
            (out / path).write_text(with_own_pool((out / path).read_text(), path))
    return sorted(made)


def with_own_imports(proto: str) -> str:
    """Return a .proto that imports others of protos/ as files of the package; in protos/ they are named from there."""
    for path in proto_files():
        name = path.relative_to(ROOT / "protos").as_posix()
        proto = proto.replace(f'import "{name}";', f'import "{PACKAGE}/{path.name}";')
    return proto


def with_own_pool(code: str, path: Path) -> str:
    """Return generated code that registers in the pool of forebay.wire. Raises SystemExit if it looks otherwise."""
    for written, wanted in OWN_POOL.items():
        if code.count(written) != 1:
            sys.exit(f"generate_wire: {path} has no single {written.strip()!r}: another compiler?")
        code = code.replace(written, wanted)
    return code


def _run(arguments: list[str]) -> None:
    from grpc_tools import protoc  # of the environment that `make proto` makes

    if protoc.main(arguments) != 0:
        sys.exit("generate_wire: protoc failed, see above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.generate_wire", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT, help="folder to write below (default: the project)")
    generate(parser.parse_args().out)
