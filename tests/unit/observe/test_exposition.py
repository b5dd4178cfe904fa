from prometheus_client.parser import text_string_to_metric_families

from forebay_server.engines.device import DeviceMemory
from forebay_server.engines.errors import DeviceLostError
from forebay_server.service.observe.exposition import render
from forebay_server.service.observe.stream_exposition import REST, TOP_STREAMS
from tests.support.observing import Observed, gauges_of, no_gauges

AWKWARD = [
    'quo"te',
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "\N{PILE OF POO} emoji",
    "x" * 10_000,
    "",
    "\ud800",
]


def families(observed):
    text = render(observed.observer, no_gauges(), observed.clock.now_ns())
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_name_that_a_client_may_choose_comes_through():
    observed = Observed()
    for name in AWKWARD:
        observed.frame(observed.open(name))
    observed.tick()
    samples = families(observed)["forebay_stream_frames_per_second"].samples
    names = [sample.labels["stream"] for sample in samples]
    assert len(samples) == len(AWKWARD)
    assert all(len(name) <= 64 for name in names)
    assert {'quo"te', "back\\slash", "new\nline", "\N{PILE OF POO} emoji", "?"} <= set(names)


def test_series_per_stream_are_bounded_and_the_rest_is_one():
    observed = Observed()
    for index in range(1000):
        observed.frame(observed.open(f"camera-{index}"), total_ms=10 + index)
    observed.tick(1000)
    found = families(observed)
    rates = {sample.labels["stream"]: sample.value for sample in found["forebay_stream_frames_per_second"].samples}
    assert len(rates) == TOP_STREAMS + 1
    assert rates[REST] == 1000 - TOP_STREAMS
    assert "camera-999" in rates
    assert len(found["forebay_stream_latency_p99_seconds"].samples) == TOP_STREAMS


def test_streams_of_the_same_name_are_series_of_their_own():
    observed = Observed()
    for _ in range(2):
        observed.frame(observed.open("twin"))
    observed.tick()
    text = render(observed.observer, no_gauges(), observed.clock.now_ns())
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_histograms_are_cumulative_and_agree_with_their_count():
    observed = Observed()
    record = observed.open()
    for total_ms in (1, 20, 300, 60_000):
        observed.frame(record, total_ms)
    observed.batch(0, rows=300)
    observed.tick()
    found = families(observed)
    total = [s for s in found["forebay_frame_latency_seconds"].samples if s.labels.get("stage") == "total"]
    buckets = [sample.value for sample in total if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == next(sample.value for sample in total if sample.name.endswith("_count")) == 4
    assert buckets[-2] == 3
    sizes = {s.labels.get("le"): s.value for s in found["forebay_batch_size"].samples if s.name.endswith("_bucket")}
    assert (sizes["128"], sizes["+Inf"]) == (0, 1)


class GpuVersion:
    """The attributes of a version that are read for its device's memory."""

    def __init__(self, name, memory):
        self.devices = [self]
        self.name = name
        self.is_attached = False
        self._memory = memory

    def attach_thread(self):
        self.is_attached = True

    def memory(self):
        assert self.is_attached
        if isinstance(self._memory, Exception):
            raise self._memory
        return self._memory


def test_memory_is_shown_once_for_each_device_that_has_its_own():
    gpu = DeviceMemory(3 << 30, 80 << 30)
    versions = [
        GpuVersion("cuda:0", gpu),
        GpuVersion("cuda:0", gpu),
        GpuVersion("cpu", None),
        GpuVersion("cuda:1", DeviceLostError("gone")),
    ]
    assert gauges_of(versions).devices() == {"cuda:0": gpu}


def test_memory_is_shown_for_every_device_of_a_version():
    gpus = [GpuVersion("cuda:0", DeviceMemory(1, 80)), GpuVersion("cuda:1", DeviceMemory(2, 80))]
    version = GpuVersion("cpu", None)
    version.devices = gpus
    found = gauges_of([version]).devices()
    assert found == {"cuda:0": DeviceMemory(1, 80), "cuda:1": DeviceMemory(2, 80)}
