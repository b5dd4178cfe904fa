"""The options for the load and its target: shared by `forebay load` and `forebay load search`.

Imports numpy only when a job is made of them, so that `--help` of the whole command line stays quick.
"""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from forebay.addresses import parse_addresses
from forebay_server.loadtest.datatypes import ITEM_BYTES
from forebay_server.loadtest.errors import UsageError
from forebay_server.loadtest.help import CLIENT, FRAMES, GENERATOR, LOAD, REPORT, SERVER
from forebay_server.loadtest.scenario import ArrivalProcess, Phase, Policy, Scenario
from forebay_server.loadtest.target import Delivery, Encoding, Protocols, TargetSpec

if TYPE_CHECKING:
    from forebay_server.loadtest.frames import FramesSpec
    from forebay_server.loadtest.job import Job

GOOD_WITHIN_MS = 100.0  # an older answer is of no use to a live view
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|m|)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_Server, _Load, _Client, _Frames, _Report, _Generator = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in (SERVER, LOAD, CLIENT, FRAMES, REPORT, GENERATOR)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The user's options; see the help texts."""

    address: Annotated[
        str, _Server(help="Server: HOST:PORT or unix:PATH; several with commas in between.", metavar="ADDRESS")
    ] = "127.0.0.1:8001"
    protocol: Annotated[Protocols, _Server(help="forebay, or the Open Inference Protocol.")] = Protocols.FOREBAY
    model: Annotated[str, _Server(help="Model name.", metavar="NAME")] = "detector"
    model_version: Annotated[str, _Server(help="Model version; empty: the newest.", metavar="VERSION")] = ""
    ca_file: Annotated[
        str, _Server("--tls-ca", help="PEM file of the authority to trust: use TLS.", metavar="FILE")
    ] = ""
    arrival: Annotated[
        ArrivalProcess | None,
        _Load(help="How frames arrive; cameras unless --rate, --concurrency or --trace is given."),
    ] = None
    cameras: Annotated[int, _Load("--cameras", "--streams", help="Number of streams.")] = 1
    fps: Annotated[float, _Load(help="Frames per second of each camera.")] = 30.0
    rate: Annotated[
        float | None,
        _Load(help="Frames per second over all streams (all arrivals but cameras)."),
    ] = None
    peak: Annotated[
        float | None,
        _Load(help="Highest rate of ramp, step, spike and sine; default: twice --rate."),
    ] = None
    gamma_shape: Annotated[float, _Load(help="gamma: below 1 burstier than Poisson, above more regular.")] = 0.5
    period: Annotated[str, _Load(help="sine: length of a swing.", metavar="TIME")] = "10s"
    spike: Annotated[str, _Load(help="spike: how long it lasts.", metavar="TIME")] = "5s"
    trace: Annotated[Path | None, _Load(help="CSV to replay: time_s, stream, size_bytes.", metavar="FILE")] = None
    concurrency: Annotated[int | None, _Load(help="Closed loop: frames in flight per stream.")] = None
    phase: Annotated[Phase, _Load(help="How the cameras' clocks lie.")] = Phase.RANDOM
    jitter: Annotated[str, _Load(help="Cameras: most delay between capture and sending.", metavar="TIME")] = "0ms"
    burst_every: Annotated[int, _Load(help="Cameras, JPEG: every Nth frame is a large one; 0: none.")] = 0
    burst_scale: Annotated[float, _Load(help="How many times larger it is.")] = 4.0
    connect_ramp: Annotated[str, _Load(help="Connect the streams one by one over this time.", metavar="TIME")] = "0s"
    duration: Annotated[str, _Load(help="How long to offer frames; a bare number is seconds.", metavar="TIME")] = "60s"
    drain: Annotated[str, _Load(help="How long to wait for answers after the last frame.", metavar="TIME")] = "5s"
    policy: Annotated[
        Policy | None,
        _Client(help="Behaviour of a full client; default: drop-oldest for cameras, else block."),
    ] = None
    queue_depth: Annotated[int, _Client(help="drop-oldest: frames that may wait at the client.")] = 1
    delivery: Annotated[
        Delivery | None,
        _Client(help="Delivery mode of the server; default: latest for cameras, else every."),
    ] = None
    budget: Annotated[
        str,
        _Client(help="Latency budget to ask for; empty: the server's default.", metavar="TIME"),
    ] = ""
    window: Annotated[int, _Client(help="Frames in flight to ask for; 0: the server's default.")] = 0
    priority: Annotated[int, _Client(help="Priority of the streams; 0: the model's default.")] = 0
    connections: Annotated[int, _Server(help="Connections; 0: one per stream, at most 64 a process.")] = 0
    frames: Annotated[
        str,
        _Frames(help="Video file, folder of pictures, or `synthetic`; empty: bundled clip.", metavar="PATH"),
    ] = ""
    encoding: Annotated[Encoding | None, _Frames(help="Of the frames; default: jpeg, or tensor with --shape.")] = None
    size: Annotated[str, _Frames(help="Resize pictures to WIDTHxHEIGHT.", metavar="WxH")] = ""
    quality: Annotated[int, _Frames(min=1, max=100, help="JPEG quality.")] = 85
    shape: Annotated[
        str,
        _Frames(help="Synthetic tensors of this shape, e.g. 3x224x224; default: the model's.", metavar="SHAPE"),
    ] = ""
    datatype: Annotated[str, _Frames(help="Element type of --shape.", metavar="TYPE")] = "FP32"
    good_within: Annotated[
        str,
        _Report(help="Answers within this count as goodput; default: --budget or 100ms.", metavar="TIME"),
    ] = ""
    seed: Annotated[int, _Load(min=0, help="Seed of everything random.")] = 1
    processes: Annotated[int, _Generator(min=1, max=64, help="Generator processes (per agent).")] = 1
    agent: Annotated[
        list[str] | None,
        _Generator(help="HOST:PORT of `forebay load agent`; repeat.", metavar="HOST:PORT"),
    ] = None
    calibrate: Annotated[bool, _Generator(help="Measure the generator's own ceiling after the run.")] = True
    live: Annotated[bool, _Generator(help="Show progress on a terminal.")] = True

    def job(self) -> "Job":
        """Return the job that these options describe. Raises UsageError."""
        from forebay_server.loadtest.job import Job

        scenario = self._scenario()
        return Job(scenario=scenario, spec=self._spec(scenario), frames=self._frames(), processes=self.processes)

    def good_within_ms(self) -> float:
        """Return the latency limit of goodput."""
        text = self.good_within or self.budget
        return seconds(text, "--good-within") * 1e3 if text else GOOD_WITHIN_MS

    def _arrival(self) -> ArrivalProcess:
        if self.arrival is not None:
            return self.arrival
        given = (
            (self.trace is not None, ArrivalProcess.TRACE),
            (self.concurrency is not None, ArrivalProcess.CLOSED),
            (self.rate is not None, ArrivalProcess.POISSON),
        )
        return next((arrival for is_given, arrival in given if is_given), ArrivalProcess.CAMERAS)

    def _scenario(self) -> Scenario:
        from forebay_server.loadtest.arrivals import read_trace

        arrival = self._arrival()
        rate = self.rate if self.rate is not None else 100.0
        trace = read_trace(self.trace) if self.trace else ()
        default_policy = Policy.DROP_OLDEST if arrival is ArrivalProcess.CAMERAS else Policy.BLOCK
        return Scenario(
            arrival=arrival,
            duration_s=seconds(self.duration, "--duration"),
            streams=max(entry.stream for entry in trace) + 1 if trace else self.cameras,
            fps=self.fps,
            phase=self.phase,
            jitter_ms=seconds(self.jitter, "--jitter") * 1e3,
            burst_every=self.burst_every,
            burst_scale=self.burst_scale,
            connect_ramp_s=seconds(self.connect_ramp, "--connect-ramp"),
            rate_per_s=rate,
            peak_per_s=self.peak if self.peak is not None else 2 * rate,
            gamma_shape=self.gamma_shape,
            period_s=seconds(self.period, "--period"),
            spike_s=seconds(self.spike, "--spike"),
            trace=trace,
            concurrency=self.concurrency or 1,
            policy=self.policy or default_policy,
            queue_depth=self.queue_depth,
            drain_s=seconds(self.drain, "--drain"),
            seed=self.seed,
        )

    def _spec(self, scenario: Scenario) -> TargetSpec:
        encoding = self._encoding()
        if self.protocol is not Protocols.FOREBAY and encoding is not Encoding.TENSOR:
            raise UsageError("the Open Inference Protocol sends tensors: leave --encoding out")
        if self.burst_every and encoding is not Encoding.JPEG:
            raise UsageError("--burst-every needs --encoding jpeg: other frames cannot change their size")
        try:
            parse_addresses(self.address)
        except ValueError as error:
            raise UsageError(f"--address: {error}") from None
        default_delivery = Delivery.LATEST if scenario.arrival is ArrivalProcess.CAMERAS else Delivery.EVERY
        return TargetSpec(
            address=self.address,
            protocol=self.protocol,
            model=self.model,
            version=self.model_version,
            encoding=encoding,
            shape=_whole_numbers(self.shape, "--shape"),
            budget_ms=seconds(self.budget, "--budget") * 1e3 if self.budget else None,
            delivery=self.delivery or default_delivery,
            window=self.window,
            priority=self.priority,
            connections=self.connections,
            ca_file=self.ca_file,
        )

    def _encoding(self) -> Encoding:
        if self.encoding is not None:
            return self.encoding
        return Encoding.TENSOR if self.shape or self.protocol is not Protocols.FOREBAY else Encoding.JPEG

    def _frames(self) -> "FramesSpec":
        from forebay_server.loadtest.frames import FramesSpec

        size = _whole_numbers(self.size, "--size")
        if self.size and len(size) != 2:
            raise UsageError("--size is WIDTHxHEIGHT, for example 640x480")
        shape = _whole_numbers(self.shape, "--shape")
        if self.datatype not in ITEM_BYTES:
            raise UsageError(f"--datatype is one of {', '.join(ITEM_BYTES)}")
        return FramesSpec(
            source=self.frames,
            size=(size[0], size[1]) if size else None,
            quality=self.quality,
            tensor_bytes=math.prod(shape) * ITEM_BYTES[self.datatype] if shape else 0,
        )


def seconds(text: str, option: str) -> float:
    """Read '60', '60s', '100ms'. Raises UsageError."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r} is no time: a number and us, ms, s or m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def with_load_options(**defaults: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all fields of LoadOptions as options; it receives them as its argument `options`.

    Args:
        defaults: by field, where the command's differ from those of LoadOptions.
    """
    fields = dataclasses.fields(LoadOptions)
    hints = get_type_hints(LoadOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(field.name, field.default),
            annotation=hints[field.name],
        )
        for field in fields
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own_hints = get_type_hints(function, include_extras=True)
        own = [
            parameter.replace(annotation=own_hints[parameter.name])
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name != "options"
        ]

        @functools.wraps(function)
        def command(**given: Any) -> None:  # noqa: ANN401  # values of the options
            options = LoadOptions(**{field.name: given.pop(field.name) for field in fields})
            function(options=options, **given)

        parameters = [*own, *shared]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.lower().split("x")) if text else ()
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a list of whole numbers like 640x480") from error
    if any(number <= 0 for number in numbers):
        raise UsageError(f"{option} {text!r}: every number must be greater than 0")
    return numbers
