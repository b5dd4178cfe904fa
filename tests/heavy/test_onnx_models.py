"""The models of the onnx package's backend tests: those that ONNX Runtime runs are served alike, or are listed here.

Each model is loaded by a real server without a configuration, and answers the package's own inputs over the Open
Inference Protocol. docs/models.md groups the refusals by their reasons.
"""

from collections import Counter

import grpc
import pytest

from forebay.wire import inference_pb2 as pb
from tests.support import onnx_cases
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import LEAK, real_server

REFUSED: frozenset[str] = frozenset()
"""Names of models that ONNX Runtime runs and that are not answered alike."""
UNKNOWN_TYPES = 159
"""Models that ONNX Runtime loads and that have a tensor of a type that the protocol does not know."""
ANSWERED = 1703
SAMPLE_OF = 8


@pytest.mark.heavy
@on_loop(guard_s=600)
async def test_a_sample_of_the_models_that_onnx_runtime_runs_is_served(tmp_path, record_property):
    """Every eighth by name; the soak test serves all of them."""
    counts = await _serve(onnx_cases.cases()[::SAMPLE_OF], tmp_path)
    record_property("counts", dict(counts))
    assert counts["answered"] >= 0.9 * ANSWERED / SAMPLE_OF
    assert counts["unknown types"] >= 0.5 * UNKNOWN_TYPES / SAMPLE_OF


@pytest.mark.heavy
@pytest.mark.soak
@on_loop(guard_s=1800)
async def test_every_model_that_onnx_runtime_runs_is_served(tmp_path, record_property):
    counts = await _serve(onnx_cases.cases(), tmp_path)
    record_property("counts", dict(counts))
    assert counts == {"unknown types": UNKNOWN_TYPES, "answered": ANSWERED}


async def _serve(cases, root):
    """Serve the models of the cases one after the other and check every answer and every refusal; count both."""
    runs = {case.name: run for case in cases if (run := _saved(case, root)) is not None}
    refused, counts = {}, Counter()
    async with real_server(root, model_control_mode="explicit") as running:
        stub = stub_of(running)
        for name, run in runs.items():
            error = await _error_of(stub, name, run)
            if run.unknown is not None:
                counts["unknown types"] += 1
                tensor, onnx_type = run.unknown
                assert f"tensor {tensor!r} has type {onnx_type}" in error, name
                assert not LEAK.search(error.replace("/1/model.onnx", "")), error
            elif error is None:
                counts["answered"] += 1
            else:
                refused[name] = error
    assert set(refused) == REFUSED & set(runs), refused
    return counts


def _saved(case, root):
    """Run a case and, if it counts, put it into the repository `root`."""
    run = onnx_cases.run(case)
    if run is None or (run.unknown is None and run.outputs is None):
        return None
    folder = root / case.name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model)
    return run


async def _error_of(stub, name, run):
    """Load a model, ask it and unload it; return the words of a refusal, None for the right answer."""
    try:
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name))
        if run.unknown is not None:
            return "loaded"
        answer = onnx_cases.arrays(await stub.ModelInfer(onnx_cases.request(name, run.inputs)))
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name))
    except grpc.aio.AioRpcError as error:
        return error.details()
    if set(answer) != set(run.outputs):
        return f"outputs {sorted(answer)}"
    for output, expected in run.outputs.items():
        given = answer[output]
        is_right = given.size == expected.size if run.is_random else onnx_cases.is_same(given, expected)
        if not is_right:
            return f"output {output!r}: {given.dtype} {given.shape}, not {expected.dtype} {expected.shape}"
    return None
