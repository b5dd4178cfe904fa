"""The import contracts of pyproject.toml hold, and each of them can fail.

The graph of the real code is built once; a contract is then checked on it unchanged, and on a copy of it with one
forbidden import added.
"""

import copy
from graphlib import TopologicalSorter

import grimp
import pytest
from importlinter.api import use_cases
from importlinter.application.use_cases import _register_contract_types
from importlinter.configuration import configure
from importlinter.domain.contract import registry

from tests.support.repository import ROOT

# contract id -> imports that it must refuse
VIOLATIONS = {
    "service": [
        ("forebay_server.service.errors", "forebay_server.service.frontend"),
        ("forebay_server.service.pipeline.slots", "forebay_server.service.batching"),
        ("forebay_server.service.batching", "forebay_server.service.pipeline.slots"),
        ("forebay_server.service.pipeline.slots", "forebay_server.service.frontend"),
        ("forebay_server.service.frontend", "forebay_server.service.server"),
        ("forebay_server.service.frontend", "forebay_server.service.observe"),
        ("forebay_server.service.journal", "forebay_server.service.pipeline.slots"),
        ("forebay_server.service.results", "forebay_server.service.models"),
        ("forebay_server.service.tracks", "forebay_server.service.results"),
    ],
    "front-end": [
        ("forebay_server.service.frontend.reception.gate", "forebay_server.service.frontend.open_inference"),
        ("forebay_server.service.frontend.frames", "forebay_server.service.frontend.open_inference"),
        ("forebay_server.service.frontend.open_inference", "forebay_server.service.frontend.control"),
        ("forebay_server.service.frontend.control", "forebay_server.service.frontend.memory"),
        ("forebay_server.service.frontend.outgoing", "forebay_server.service.frontend.frames"),
        ("forebay_server.service.frontend.housekeeping", "forebay_server.service.frontend.server"),
    ],
    "wire": [
        ("forebay.wire.frames_pb2", "forebay_server.service.errors"),
        ("forebay.wire.frames_pb2", "forebay.client"),
    ],
    "client": [
        ("forebay.client", "forebay_server.service.errors"),
        ("forebay.client", "forebay_server.engines.clock"),
        ("forebay", "pydantic"),
    ],
    "engines": [
        ("forebay_server.engines.device", "forebay_server.service.request"),
        ("forebay_server.engines.clock", "forebay.wire.frames_pb2"),
    ],
    "loadtest": [
        ("forebay_server.loadtest.client", "forebay_server.service.errors"),
        ("forebay_server.loadtest.client", "forebay.client"),
    ],
    "command-line": [
        ("forebay_server.service.frontend", "forebay_server.loadtest"),
        ("forebay_server.service.server", "forebay_server.bench"),
        ("forebay_server.service.frontend", "forebay.client"),
    ],
    "concrete": [
        ("forebay_server.service.models", "forebay_server.engines.engine_onnxruntime"),
        ("forebay_server.service.pipeline", "forebay_server.engines.device_cuda"),
    ],
    "grpc": [
        ("forebay_server.service.pipeline.slots", "grpc"),
        ("forebay_server.engines.device", "grpc"),
        ("forebay_server.service.cli", "grpc_health"),
    ],
    "cuda": [("forebay_server.engines.device_host", "cuda"), ("forebay_server.service.pipeline.slots", "cuda")],
    "tensorrt": [
        ("forebay_server.engines.engine_onnxruntime", "tensorrt"),
        ("forebay_server.service.models", "tensorrt_rtx"),
    ],
    "onnxruntime": [
        ("forebay_server.service.models", "onnxruntime"),
        ("forebay_server.engines.device_host", "onnxruntime"),
    ],
    "torch": [("forebay_server.service.results", "torch"), ("forebay_server.engines.engine_onnxruntime", "torch")],
    "opentelemetry": [("forebay_server.service.observe.spans", "opentelemetry"), ("forebay.client", "opentelemetry")],
    "nvml": [("forebay_server.service.observe.gauges", "pynvml"), ("forebay_server.engines.device_cuda", "pynvml")],
    "lap": [("forebay_server.service.tracks.tracker", "lap"), ("forebay.client", "lap")],
    "av": [("forebay_server.service.frontend.frames.video.decoder", "av"), ("forebay.client", "av")],
    "cv2": [
        ("forebay_server.service.pipeline.slots", "cv2"),
        ("forebay.client", "cv2"),
        ("forebay_server.service.batching", "simplejpeg"),
    ],
}

configure()
OPTIONS = use_cases.read_user_options(str(ROOT / "pyproject.toml"))
_register_contract_types(OPTIONS)
CONTRACTS = {options["id"]: options for options in OPTIONS.contracts_options}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        *OPTIONS.session_options["root_packages"],
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def is_kept(contract_id, graph):
    options = CONTRACTS[contract_id]
    contract_class = registry.get_contract_class(options["type"])
    contract = contract_class(name=options["name"], session_options=OPTIONS.session_options, contract_options=options)
    return contract.check(copy.deepcopy(graph), verbose=False).kept


@pytest.mark.parametrize("contract_id", sorted(CONTRACTS))
def test_contract_is_kept(contract_id, graph):
    assert is_kept(contract_id, graph)


def test_every_contract_is_broken_once():
    assert set(VIOLATIONS) == set(CONTRACTS)


@pytest.mark.parametrize(
    ("contract_id", "importer", "imported"),
    [(contract_id, *edge) for contract_id, edges in VIOLATIONS.items() for edge in edges],
)
def test_forbidden_import_breaks_its_contract(contract_id, importer, imported, graph):
    broken = copy.deepcopy(graph)
    for module in (importer, imported):
        if module not in broken.modules:
            broken.add_module(module, is_squashed=module.split(".")[0] not in OPTIONS.session_options["root_packages"])
    broken.add_import(importer=importer, imported=imported)
    assert not is_kept(contract_id, broken)


FRONT_END = "forebay_server.service.frontend"


def front_end_imports(graph):
    """Each module of the front end with those of the front end that it imports."""
    modules = graph.find_descendants(FRONT_END)
    return {module: graph.find_modules_directly_imported_by(module) & modules for module in modules}


def package_of(module):
    return module.removeprefix(f"{FRONT_END}.").split(".")[0]


def test_imports_within_the_front_end_make_no_circle(graph):
    imports = front_end_imports(graph)
    order = list(TopologicalSorter(imports).static_order())
    assert len(order) == len(imports) > 50


def test_few_imports_lead_from_one_package_of_the_front_end_to_another(graph):
    packages = {module for module in graph.find_children(FRONT_END) if graph.find_children(module)}
    names = {package_of(module) for module in packages}
    assert names == {"control", "frames", "memory", "open_inference", "reception"}
    crossing = [
        (importer, imported)
        for importer, found in front_end_imports(graph).items()
        for imported in found
        if {package_of(importer), package_of(imported)} <= names and package_of(importer) != package_of(imported)
    ]
    assert 0 < len(crossing) <= 20, sorted(crossing)


def test_every_contract_has_a_violation():
    assert set(CONTRACTS) == set(VIOLATIONS)
