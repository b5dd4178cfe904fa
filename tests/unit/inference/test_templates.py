"""A client's repeated request is checked once, and never mistaken for another."""

import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.errors import InvalidRequestError, UnknownModelError
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.open_inference import lookup as lookup_module
from forebay_server.service.frontend.open_inference.arrivals import StreamKeys
from forebay_server.service.frontend.open_inference.checks import read_template
from forebay_server.service.frontend.open_inference.codec import arrays_of
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.schema import ModelSchema
from forebay_server.service.frontend.open_inference.wire import parse
from forebay_server.service.journal.statistics import VersionStatistics
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config_text import parse_config
from forebay_server.service.models.description import ModelDescription
from tests.support.clock import ManualClock


class Version:
    """The attributes of a model version that a lookup needs."""

    def __init__(self, columns, version="1", text="", has_batch=True):
        tensors = (TensorSpec("x", np.dtype(np.int32), columns),)
        self.specs = EngineSpecs(tensors, tensors, max_batch_size=4 if has_batch else 1, has_batch_dimension=has_batch)
        self.name, self.version = "m", version
        description = ModelDescription("m", "simulated", None, config=parse_config(text, "m/config.pbtxt"))
        self.description = complete(description, self.specs)
        self.users = 0
        self.statistics, self.requests = VersionStatistics(ManualClock()), None

    def end_use(self):
        self.users -= 1


class Models:
    """Finds the version that serves now."""

    def __init__(self, version):
        self.serving = version

    def acquire(self, name, version):
        if version not in ("", self.serving.version):
            raise UnknownModelError("no such version")
        self.serving.users += 1
        return self.serving


def data_of(columns, request_id="", version="", rows=1, **parameters):
    request = pb.ModelInferRequest(model_name="m", model_version=version, id=request_id)
    request.inputs.add(name="x", datatype="INT32", shape=[rows, columns])
    request.raw_input_contents.append(bytes(4 * rows * columns))
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    return request.SerializeToString()


def lookup_of(models):
    regions, admission = ClientRegions(is_enabled=False), Admission(ManualClock())
    return ModelLookup(models.acquire, models.acquire, lambda name: {"1"}, regions, admission)


def form_of(lookup, data):
    version, call = lookup.check(parse(data), "peer", 0)
    version.end_use()
    return call.template


def test_requests_that_differ_in_id_and_data_share_a_template():
    lookup = lookup_of(Models(Version((3,))))
    assert form_of(lookup, data_of(3, "a")) is form_of(lookup, data_of(3, "another"))
    assert form_of(lookup, data_of(3)) is not form_of(lookup, data_of(3, rows=2))


def test_a_version_that_took_over_checks_anew():
    models = Models(Version((3,)))
    lookup = lookup_of(models)
    first = form_of(lookup, data_of(3))
    models.serving = Version((3,), "2")
    second = form_of(lookup, data_of(3))
    assert (first.schema.version, second.schema.version) == ("1", "2")
    models.serving = Version((5,), "3")
    with pytest.raises(InvalidRequestError, match=r"Expected \[-1,5\], got \[1,3\]"):
        lookup.check(parse(data_of(3)), "peer", 0)
    assert models.serving.users == 0


def test_a_version_that_is_named_stays_named():
    models = Models(Version((3,)))
    lookup = lookup_of(models)
    form_of(lookup, data_of(3, version="1"))
    models.serving = Version((3,), "2")
    with pytest.raises(InferenceError, match="version 1 is not at ready state"):
        lookup.check(parse(data_of(3, version="1")), "peer", 0)


def test_keys_of_streams_live_as_long_as_somebody_has_them():
    _, call = lookup_of(Models(Version((3,)))).check(parse(data_of(3)), "peer", 0)
    keys = StreamKeys(are_ordered=True)
    first = keys.get("peer", call)
    assert keys.get("peer", call) is first
    assert keys.get("other peer", call) is not first
    assert len(keys) == 1  # no client has the other
    del first
    assert len(keys) == 0


def test_independent_calls_of_a_client_share_one_unordered_key_whatever_they_say():
    lookup = lookup_of(Models(Version((3,))))
    keys = StreamKeys(are_ordered=False)
    calls = [lookup.check(parse(data_of(3, rows=rows)), "peer", 0)[1] for rows in (1, 2)]
    first, second = (keys.get("peer", call) for call in calls)
    assert first is second
    assert not first.is_ordered
    assert keys.get("other peer", calls[0]) is not first


@pytest.mark.parametrize("parameter", [{"sequence_id": "7"}, {"stream": "door"}, {"delivery": "latest"}])
def test_requests_of_one_sequence_or_stream_and_latest_ones_are_ordered(parameter):
    lookup = lookup_of(Models(Version((3,))))
    _, call = lookup.check(parse(data_of(3, **parameter)), "peer", 0)
    assert StreamKeys(are_ordered=False).get("peer", call).is_ordered


def test_as_many_templates_are_kept_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(lookup_module, "MAX_TEMPLATES", 2)
    lookup = lookup_of(Models(Version((3,))))
    for rows in (1, 2, 3, 4):
        form_of(lookup, data_of(3, rows=rows))
        assert len(lookup._templates) <= 2


def test_data_of_another_size_are_refused_with_every_request():
    lookup = lookup_of(Models(Version((3,))))
    form_of(lookup, data_of(3))
    request = pb.ModelInferRequest.FromString(data_of(3))
    request.raw_input_contents[0] = b"12345678"
    with pytest.raises(InvalidRequestError, match="Expected 12, got 8"):
        lookup.check(parse(request.SerializeToString()), "peer", 0)


@pytest.mark.parametrize(
    ("columns", "dims", "reshape", "sent", "engine"),
    [
        ((2, 5), "10", "2, 5", (10,), (2, 5)),
        ((-1,), "-1, 1", "-1", (7, 1), (7,)),
        ((-1, 3, -1), "-1, -1, 1, 3", "-1, 3, -1", (4, 6, 1, 3), (4, 3, 6)),
        ((), "1", "", (1,), ()),
    ],
)
def test_a_reshape_stands_between_clients_and_engine(columns, dims, reshape, sent, engine):
    text = f'max_batch_size: 4 input {{ name: "x" dims: [ {dims} ] reshape {{ shape: [ {reshape} ] }} }}'
    schema = ModelSchema(Version(columns, text=text))
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="INT32", shape=(2, *sent))
    template = read_template(request, 1, schema)
    assert template.shapes == (engine,)
    assert schema.inputs["x"].to_client(engine) == sent


def test_dims_that_are_freer_than_the_model_are_not_believed():
    schema = ModelSchema(Version((2, 5), text='max_batch_size: 4 input { name: "x" dims: [ -1, -1 ] }'))
    assert schema.inputs["x"].shape == (2, 5)


def test_an_array_that_lies_anyhow_in_a_message_is_aligned():
    version = Version((-1,), has_batch=False)
    schema = ModelSchema(version)
    for padding in range(4):
        request = pb.ModelInferRequest(model_name="m" * (padding + 1))
        request.inputs.add(name="x", datatype="INT32", shape=[3])
        request.raw_input_contents.append(np.arange(3, dtype=np.int32).tobytes())
        message = parse(request.SerializeToString())
        call = lookup_module.fill(read_template(message.request, 1, schema), message, None)
        (array,) = arrays_of(call)
        assert array.flags.aligned
        np.testing.assert_array_equal(array, np.arange(3))
