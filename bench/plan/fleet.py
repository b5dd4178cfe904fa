"""A plan for all machines: the cameras that fit on each kind of machine, added up. Pure."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from forebay_server.bench.plan.costs import PlanCosts
from forebay_server.bench.plan.fit import Cameras, Fit, Machine, Point, Target, fit
from forebay_server.bench.plan.real_runs import RealRun
from forebay_server.bench.plan.virtual_server import MODEL

SCHEMA = "forebay.plan/1"
MOST_MACHINES, MOST_CORES = 100_000, 1024
FULL = 0.9
"""Share of the cores in use above which the cores are named as the limit: threads beyond it wait for each other."""
NOTED_CORES = 0.1
"""Cores that other programs used during the measurement, from which on the plan says so: costs are too high then."""
_MACHINES = re.compile(r"(?:([1-9][0-9]*)x)?([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Group:
    """Machines of one kind: their number, and the fit of one."""

    count: int
    machine: Machine
    fit: Fit


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer.

    Attributes:
        costs: it was computed from.
        cameras: of each kind of traffic: there is one.
        target: that must hold.
        groups: kinds of machines.
        wanted: cameras that the user has; None: they asked for none.
    """

    costs: PlanCosts
    cameras: Cameras
    target: Target
    groups: tuple[Group, ...]
    wanted: int | None

    @property
    def in_all(self) -> int:
        """Cameras that fit on all machines together."""
        return sum(group.count * group.fit.fits for group in self.groups)

    @property
    def is_enough(self) -> bool:
        """Whether what is wanted fits; without a wish, whether anything fits."""
        return self.in_all >= (self.wanted or 1)


def parse_machines(text: str) -> tuple[int, int]:
    """Read `4` (one machine of four cores) or `3x4` (three of them). Raises ValueError, which says what is allowed."""
    found = _MACHINES.fullmatch(text.strip())
    if found is None or int(found[1] or 1) > MOST_MACHINES or int(found[2]) > MOST_CORES:
        raise ValueError(
            f"{text!r} is no number of machines and cores: write 8 for one machine of 8 cores, 3x8 for three "
            f"(at most {MOST_MACHINES}x{MOST_CORES})"
        )
    return int(found[1] or 1), int(found[2])


def make_plan(
    costs: PlanCosts,
    cameras: Cameras,
    target: Target,
    machines: list[tuple[int, Machine]],
    wanted: int | None = None,
    seed: int = 1,
) -> Plan:
    """Simulate each kind of machine once. Blocks: for seconds of CPU time per kind."""
    fits: dict[Machine, Fit] = {}
    for _, machine in machines:
        if machine not in fits:
            fits[machine] = fit(costs, cameras, machine, target, seed)
    groups = tuple(Group(count, machine, fits[machine]) for count, machine in machines)
    return Plan(costs, cameras, target, groups, wanted)


def limit_of(plan: Plan, group: Group) -> str:
    """Return what keeps more cameras from fitting on a machine, in words."""
    point = group.fit.limit
    machine = group.machine
    free = max(0.05, machine.cores - machine.taken)
    if point.cores_busy >= FULL * free:
        beside = f"; {machine.taken:.1f} are taken by others" if machine.taken else ""
        if machine.has_cameras:
            camera_ns = plan.costs.slowed().frame.camera_ns
            beside = f", {point.cameras * plan.cameras.fps * camera_ns / 1e9:.1f} by cameras{beside}"
        used = "in use" if plan.costs.slowdown <= 1.0 else "in use or waited for"
        return f"the cores: {point.cores_busy:.1f} of {free:.1f} are {used}{beside}"
    if not point.is_sent_in_time:
        return "the cameras' program, which sends too late beside the server"
    return _limiting_part(plan.costs, machine, point)


def _limiting_part(costs: PlanCosts, machine: Machine, point: Point) -> str:
    if point.busiest == MODEL and costs.strands and machine.cores - point.cores_busy >= 1:
        has = f"{costs.instances} instances" if costs.instances > 1 else "1 instance"
        used = f"{point.cores_busy:.1f} of {machine.cores} cores are in use"
        return f"the model: its {has}, busy {point.busy:.0%}, while {used}; add instances"
    if point.busy >= FULL:
        return f"{point.busiest}, busy {point.busy:.0%}"
    return f"the latency: {point.busiest}, the busiest part, is busy {point.busy:.0%}"


def to_document(plan: Plan) -> dict[str, Any]:
    """Return the plan for JSON."""
    return {
        "schema": SCHEMA,
        "model": plan.costs.model,
        "encoding": plan.costs.encoding,
        "frame": {"width": plan.costs.width, "height": plan.costs.height, "bytes": plan.costs.frame_bytes},
        "camera": {
            "fps": plan.cameras.fps,
            "budget_ms": plan.cameras.budget_ms,
            "delivery": plan.cameras.delivery.value,
        },
        "target": asdict(plan.target),
        "costs": {
            "cores": plan.costs.cores,
            "others_cores": round(plan.costs.others_cores, 2),
            "execute_ms": {
                str(size): ns / 1e6
                for size, ns in zip(plan.costs.table.sizes, plan.costs.table.execute_ns, strict=True)
            },
            "slowdown": plan.costs.slowdown,
            "real_runs": asdict(plan.costs.real) if plan.costs.real is not None else None,
            "frame_us": {name.removesuffix("_ns"): ns / 1e3 for name, ns in asdict(plan.costs.frame).items()},
        },
        "machines": [
            {
                "count": group.count,
                "cores": group.machine.cores,
                "front_ends": group.machine.front_ends,
                "cores_taken": group.machine.taken,
                "cameras_on_it": group.machine.has_cameras,
                "fits": group.fit.fits,
                "fits_on_all": group.count * group.fit.fits,
                "limit": limit_of(plan, group),
                "points": [_point(point, plan.target) for point in group.fit.points],
            }
            for group in plan.groups
        ],
        "fits": plan.in_all,
        "wanted": plan.wanted,
        "is_enough": plan.is_enough,
    }


def _point(point: Point, target: Target) -> dict[str, Any]:
    fields = asdict(point) | {"passes": point.passes(target)}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }


def to_text(plan: Plan) -> str:
    """Return the plan in words."""
    costs, cameras, target = plan.costs, plan.cameras, plan.target
    size = f" {costs.width}x{costs.height}" if costs.width else ""
    lines = [
        f"{costs.model}: cameras of {cameras.fps:g} frames a second, {costs.encoding}{size} of "
        f"{costs.frame_bytes / 1000:.0f} KB, budget {cameras.budget_ms:g} ms, {cameras.delivery.value}",
        f"target: upper end of p99 within {target.p99_ms:g} ms, at most {target.dropped_share:.2%} dropped",
        "",
        f"{'machines':<22} {'cameras each':>12} {'p99':>9} {'dropped':>9}  limit",
    ]
    for group in plan.groups:
        at = group.fit.at
        p99 = f"{at.p99_ms:.0f} ms" if at is not None else "-"
        dropped = f"{at.dropped_share:.2%}" if at is not None else "-"
        cores = group.machine.cores
        name = f"{group.count} of {cores} {'core' if cores == 1 else 'cores'}"
        lines.append(f"{name:<22} {group.fit.fits:>12} {p99:>9} {dropped:>9}  {limit_of(plan, group)}")
    lines += ["", *_real_words(costs)]
    if costs.others_cores >= NOTED_CORES:
        lines += ["", f"note: measured while other programs used {costs.others_cores:.1f} of {costs.cores} cores; "
                  "measure again on a quiet machine"]  # fmt: skip
    lines += ["", f"in all: {plan.in_all} {'camera' if plan.in_all == 1 else 'cameras'}"]
    if plan.wanted is not None:
        lines.append(_verdict(plan))
    return "\n".join(lines) + "\n"


def _real_words(costs: PlanCosts) -> list[str]:
    """Return the results of the real runs and their consequence."""
    real = costs.real
    if real is None:
        return ["no real run corrects these numbers: the costs were measured without any; measure again for that"]
    if not real.promised:
        return [
            "no real run corrects these numbers: in the simulation not even one camera fits where they were measured"
        ]
    head = f"real runs on the machine that measured, {real.fps:g} frames a second, p99 within {real.p99_ms:g} ms:"
    lines = [head, *(_run_words(run) for run in real.runs)]
    if real.doubt:
        return [*lines, f"note: no real run corrects these numbers: {real.doubt}"]
    if costs.slowdown == 1.0:
        return [*lines, f"the simulation agrees: it says {real.promised}"]
    times = f"all its times are taken {costs.slowdown:.2f} times as long for these numbers"
    return [*lines, f"the simulation had said {real.promised}: {times}"]


def _run_words(run: RealRun) -> str:
    """Return one real run in words."""
    cameras = f"{run.cameras} {'camera' if run.cameras == 1 else 'cameras'}"
    p99 = f" at p99 {run.p99_ms:.0f} ms" if run.p99_ms is not None else ""
    verdict = "they fit" if run.passes else f"in time, but {run.remark}" if run.remark else "they do not fit"
    if run.is_disturbed:
        verdict = f"it does not count, other programs used {run.others_cores:.1f} cores meanwhile"
    return f"  {cameras} kept {1.0 - run.dropped_share:.1%} of {run.frames} frames{p99}: {verdict}"


def _verdict(plan: Plan) -> str:
    wanted, last = plan.wanted or 0, plan.groups[-1]
    if plan.is_enough:
        return f"{wanted} fit"
    if not last.fit.fits:
        return f"{wanted} do not fit: not even one does on a machine of {last.machine.cores} cores"
    more = math.ceil((wanted - plan.in_all) / last.fit.fits)
    return f"{wanted} do not fit: {more} more of {last.machine.cores} cores would do"
