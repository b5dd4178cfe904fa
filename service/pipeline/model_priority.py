"""Which model goes first where several share a device."""

from dataclasses import dataclass

from forebay_server.engines.device import StreamPriority


@dataclass(frozen=True, slots=True, order=True)
class ModelPriority:
    """The rank of a model among those that share a device: the smaller one goes first.

    A GPU ranks the compute streams of its models. On the CPU, models behind the others execute in nicer threads
    (`Device.rank_thread`, docs/adr/0140).

    Attributes:
        level: -1 for `optimization { priority: PRIORITY_MAX }`, 1 for PRIORITY_MIN, else 0.
        number: of `instance_group { rate_limiter { priority } }`, from 1; decides within a level.
    """

    level: int = 0
    number: int = 1

    @property
    def of_device_stream(self) -> StreamPriority:
        """The priority of the model's executions, of which a device knows three."""
        if self.level < 0:
            return StreamPriority.HIGH
        return StreamPriority.NORMAL if self == ModelPriority() else StreamPriority.LOW
