"""The knobs of one model's batch former, checked once at load.

Names and meanings follow Triton's `dynamic_batching` where it has the knob; docs/batching.md says where Forebay differs
and when a knob is worth touching (rarely).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from forebay_server.service.batching.constants import LONGEST_DELAY_US, MAX_DEPTH


def _require(is_good: bool, name: str, value: int, wanted: str) -> None:  # noqa: FBT001 - an assertion with words
    if not is_good:
        raise ValueError(f"{name} is {value}; it must be {wanted}")


class PolicyName(enum.StrEnum):
    """The rule that decides when a batch leaves and which requests are in it."""

    JIT_EDF = "jit_edf"
    WINDOW = "window"
    EAGER = "eager"


class TimeoutAction(enum.Enum):
    """The end of a request whose queue timeout passes while it is pending."""

    REJECT = "reject"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The queue of one priority level.

    Attributes:
        timeout_action: REJECT answers EXPIRED; DELAY moves the request behind everything unexpired of its level.
        default_timeout_us: time that a request may be pending, 0 for no limit.
        allow_timeout_override: whether a client may ask for less; read by the window policy only, since the default
            policy always honours a client's timeout.
        max_queue_size: requests of the level that may be pending, 0 for no limit.
    """

    timeout_action: TimeoutAction = TimeoutAction.REJECT
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0

    def __post_init__(self) -> None:
        _require(self.default_timeout_us >= 0, "default_timeout_microseconds", self.default_timeout_us, "at least 0")
        _require(self.max_queue_size >= 0, "max_queue_size", self.max_queue_size, "at least 0")


@dataclass(frozen=True, slots=True)
class BatchingSettings:
    """All knobs of one former.

    Attributes:
        max_batch_size: most rows in a batch, at least 1.
        preferred_batch_sizes: sizes that a batch is cut down to while its oldest request is younger than the delay;
            empty means no preference.
        max_queue_delay_us: longest voluntary wait of the oldest request for company on an idle executor.
        depth: batches between forming and the end of d2h, 1 to 3.
        guard_min_us: how much before the last moment a batch is bound, at least.
        priority_levels: 0 for one level; else 1 (most urgent) to this.
        default_priority_level: level of requests that name none, or one that does not exist.
        default_queue_policy: policy of every level without one of its own.
        priority_queue_policies: policies by level.
        policy: `jit_edf` (default), `window` (Triton's behaviour) or `eager`.
    """

    max_batch_size: int
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    depth: int = 2
    guard_min_us: int = 200
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policies: Mapping[int, QueuePolicy] = field(default_factory=lambda: MappingProxyType({}))
    policy: PolicyName = PolicyName.JIT_EDF

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", PolicyName(self.policy))
        object.__setattr__(self, "preferred_batch_sizes", tuple(sorted(set(self.preferred_batch_sizes))))
        _require(self.max_batch_size >= 1, "max_batch_size", self.max_batch_size, "at least 1")
        _require(1 <= self.depth <= MAX_DEPTH, "depth", self.depth, f"1 to {MAX_DEPTH}")
        _require(self.guard_min_us >= 0, "guard_min_us", self.guard_min_us, "at least 0")
        _require(
            0 <= self.max_queue_delay_us <= LONGEST_DELAY_US,
            "max_queue_delay_microseconds",
            self.max_queue_delay_us,
            f"0 to {LONGEST_DELAY_US} (a minute)",
        )
        for size in self.preferred_batch_sizes:
            _require(1 <= size <= self.max_batch_size, "preferred_batch_size", size, f"1 to {self.max_batch_size}")
        self._check_levels()

    def _check_levels(self) -> None:
        levels = self.priority_levels
        _require(levels >= 0, "priority_levels", levels, "at least 0")
        if levels:
            default = self.default_priority_level
            _require(1 <= default <= levels, "default_priority_level", default, f"1 to {levels} (priority_levels)")
        for level in self.priority_queue_policies:
            _require(1 <= level <= levels, "priority_queue_policy", level, f"a level from 1 to {levels}")

    @property
    def has_default_timeout(self) -> bool:
        """Whether requests of some level have a queue timeout that they did not ask for."""
        policies = (self.default_queue_policy, *self.priority_queue_policies.values())
        return any(policy.default_timeout_us for policy in policies)

    @property
    def may_prefetch(self) -> bool:
        """Whether policy window may bind a batch to a lane that is busy, as Triton would.

        It may if no policy can reject, delay or overtake a request until the lane is free.
        """
        policy = self.default_queue_policy
        has_policy = policy.default_timeout_us or policy.allow_timeout_override or policy.max_queue_size
        return self.policy is not PolicyName.WINDOW or not (self.priority_levels or has_policy)

    def level_of(self, priority: int) -> int:
        """Return the level of a request that asks for `priority`; 0 when there is only one level."""
        if not self.priority_levels:
            return 0
        return priority if 1 <= priority <= self.priority_levels else self.default_priority_level

    def queue_policy_of(self, level: int) -> QueuePolicy:
        """Return the queue policy of a level."""
        return self.priority_queue_policies.get(level, self.default_queue_policy)
