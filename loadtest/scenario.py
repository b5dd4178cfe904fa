"""The load to offer, as one immutable value: the arrival of frames, the duration, and the policy of a full client.

A scenario does not describe the server (see target). Two runs with equal scenarios offer the same frames at the same
times, however many processes share the work: everything random comes from `seed`.
"""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from forebay_server.loadtest.errors import UsageError

MAX_PLANNED_FRAMES = 20_000_000  # 90 bytes each are held in memory for exact statistics: 1.8 GB at most


class ArrivalProcess(StrEnum):
    """How frames arrive. All are open loop except CLOSED."""

    CAMERAS = "cameras"  # every stream has its own frame rate, phase and jitter
    POISSON = "poisson"  # independent arrivals at a constant rate
    GAMMA = "gamma"  # gamma-distributed gaps: shape < 1 is burstier than Poisson, > 1 more regular
    RAMP = "ramp"  # Poisson, the rate rises linearly from rate to peak over the run
    STEP = "step"  # Poisson, the rate jumps to peak at half time
    SPIKE = "spike"  # Poisson, at peak rate for spike_s from the middle of the run, else at rate
    SINE = "sine"  # Poisson, the rate swings between rate and peak with period_s
    TRACE = "trace"  # instants recorded earlier
    CLOSED = "closed"  # closed loop: a new frame leaves when an answer arrives; hides queueing, labelled as such


class Policy(StrEnum):
    """The client's treatment of a frame that cannot be handed to the connection yet."""

    DROP_OLDEST = "drop-oldest"  # keep the newest queue_depth frames, count the others as client_dropped
    BLOCK = "block"  # keep all of them; their latency counts from their due time


class Phase(StrEnum):
    """The phases of the cameras' clocks relative to one another."""

    RANDOM = "random"
    EVEN = "even"
    ALIGNED = "aligned"  # the worst case: all cameras fire at the same time


# Load that changes by design has no steady state to wait for.
SHAPED = frozenset(
    {ArrivalProcess.RAMP, ArrivalProcess.STEP, ArrivalProcess.SPIKE, ArrivalProcess.SINE, ArrivalProcess.TRACE}
)


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One recorded frame: its time (seconds from the start), its stream, its size (bytes; 0: the ordinary size)."""

    time_s: float
    stream: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The load to offer. Rates are frames per second over all streams; `fps` is per camera."""

    arrival: ArrivalProcess = ArrivalProcess.CAMERAS
    duration_s: float = 60.0
    streams: int = 1
    fps: float = 30.0
    phase: Phase = Phase.RANDOM
    jitter_ms: float = 0.0  # a camera's frame leaves 0..jitter_ms after its capture, uniformly
    burst_every: int = 0  # every Nth frame of a camera is a large one (an I-frame); 0: never
    burst_scale: float = 4.0  # how many times larger
    connect_ramp_s: float = 0.0  # streams connect one after the other over this time
    rate_per_s: float = 100.0
    peak_per_s: float = 200.0
    gamma_shape: float = 0.5
    period_s: float = 10.0
    spike_s: float = 5.0
    trace: tuple[TraceEntry, ...] = ()
    concurrency: int = 1  # closed loop only: frames in flight per stream
    policy: Policy = Policy.DROP_OLDEST
    queue_depth: int = 1  # DROP_OLDEST only: frames that may wait at the client
    drain_s: float = 5.0  # answers that come later than this after the last frame count as lost
    seed: int = 1

    def __post_init__(self) -> None:
        """Reject an invalid scenario with a message that names the option."""
        positive = ("duration_s", "streams", "fps", "rate_per_s", "peak_per_s", "gamma_shape", "period_s", "spike_s")
        for name in (*positive, "concurrency", "queue_depth", "burst_scale", "drain_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{_option(name)} must be more than 0, not {getattr(self, name):g}")
        for name in ("jitter_ms", "burst_every", "connect_ramp_s", "seed"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{_option(name)} must not be negative, not {getattr(self, name):g}")
        if self.connect_ramp_s >= self.duration_s:
            raise UsageError("--connect-ramp must be shorter than the run, --duration")
        if self.arrival is ArrivalProcess.TRACE and not self.trace:
            raise UsageError("a trace scenario needs a trace file with at least one frame")
        if self.planned_frames > MAX_PLANNED_FRAMES:
            raise UsageError(f"{self.planned_frames:.0f} frames are planned, at most {MAX_PLANNED_FRAMES} can be held")

    @property
    def is_open_loop(self) -> bool:
        """Whether frames leave at times fixed beforehand."""
        return self.arrival is not ArrivalProcess.CLOSED

    @property
    def is_shaped(self) -> bool:
        """Whether the load changes by design, so that there is no steady state to wait for."""
        return self.arrival in SHAPED

    @property
    def offered_per_s(self) -> float:
        """Mean frames per second that the scenario asks for; 0 for a closed loop, which asks for none."""
        match self.arrival:
            case ArrivalProcess.CAMERAS:
                return self.streams * self.fps
            case ArrivalProcess.POISSON | ArrivalProcess.GAMMA:
                return self.rate_per_s
            case ArrivalProcess.RAMP | ArrivalProcess.STEP | ArrivalProcess.SINE:
                return (self.rate_per_s + self.peak_per_s) / 2
            case ArrivalProcess.SPIKE:
                share = min(1.0, self.spike_s / self.duration_s)
                return self.rate_per_s + (self.peak_per_s - self.rate_per_s) * share
            case ArrivalProcess.TRACE:
                return len(self.trace) / self.duration_s
            case ArrivalProcess.CLOSED:
                return 0.0

    @property
    def planned_frames(self) -> float:
        """Approximate number of frames of the whole run."""
        return self.offered_per_s * self.duration_s

    def to_dict(self) -> dict[str, object]:
        """Return the scenario for a report; `from_dict` reads it back."""
        fields = dataclasses.asdict(self)
        fields["trace"] = [dataclasses.astuple(entry) for entry in self.trace]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, object]) -> "Scenario":
        """Read a value of `to_dict`."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise UsageError(f"unknown scenario fields: {', '.join(unknown)}")
        values = dict(fields)
        kinds = {"arrival": ArrivalProcess, "policy": Policy, "phase": Phase}
        for name in kinds.keys() & values.keys():
            values[name] = kinds[name](str(values[name]))
        trace = values.get("trace", ())
        values["trace"] = tuple(TraceEntry(*entry) for entry in trace) if isinstance(trace, list | tuple) else ()
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ checks the ranges


def _option(field: str) -> str:
    """Return the option that gives a field: `--duration` gives duration_s."""
    if field == "streams":
        return "--cameras"
    name = field
    for unit in ("_per_s", "_ms", "_s"):
        name = name.removesuffix(unit)
    return f"--{name.replace('_', '-')}"
