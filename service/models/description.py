"""The description of one model: how frames become its inputs, and the meaning of its outputs.

Values only: made by `service.models.config`, read by decoding, batching, results and the front end. A description is
made twice, once from the configuration alone (`specs` is None: enough to open an engine), and once completed with the
opened engine's inputs and outputs. Only completed descriptions serve. Thread: any (immutable).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.models.instances import WHOLE, Instance, InstanceGroup, Part, instances_of
from forebay_server.service.models.repository import config_name_of
from forebay_server.service.models.warmup_samples import WarmupSample
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.task import Task


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """Triton's scheduling knobs, as configured.

    Attributes:
        preferred_batch_sizes: rising; empty means only max_batch_size.
        max_queue_delay_us: upper bound of how long a batch may wait to fill; None leaves it to the policy.
        priority_levels: 0 for no levels.
        default_priority: level of a request that names none; 1 is the most urgent.
    """

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int | None = None
    priority_levels: int = 0
    default_priority: int = 1


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model, all versions alike.

    Attributes:
        name: name in the repository.
        backend: engine to open: onnxruntime, tensorrt, torch or simulated.
        max_batch_size: as engines.open_engine takes it: most rows of one execution, 0 for a model without a batch
            dimension, None to let the engine choose.
        specs: inputs and outputs of the opened engine; None before.
        image: set if frames may be sent as pictures.
        task: meaning of the outputs; None for tensors only.
        latency_budget_ms: default for LATEST streams; None leaves it to the service.
        device_kind: of its instances: CPU or CUDA.
        groups: number of instances by GPU, at least one; `service.models.placement` names the GPUs of groups on all.
        part: of the instances that this process opens.
        batching: scheduling knobs.
        backend_options: parameters that are the backend's own (`alpha_ms`, ...), as written.
        model_filename: default_model_filename of the configuration; empty for the backend's usual name.
        labels: names of the classes by output, for outputs with a label file.
        labels_file: lines of the file `labels.txt` beside the model; None if there is none.
        derived: parameters that the configuration did not write, with the source of each; they are in `config` now.
        question: names the parameters with which it would take pictures; empty if it does, or cannot.
        warmup: requests that every instance runs before a version serves, beside the derived ones.
        warnings: one sentence for each ignored field of the configuration, for the log.
        is_bare: whether it is a bare model file (`service.models.bare_files`).
        is_folded: whether the picture's normalisation is in the graph, so that the model takes bytes.
        observed_rows: most rows that a trial run gave of outputs that may have one for each object; 0: no such output.
        config: the configuration as read, or an empty one with the name; normalised once `specs` is set.
    """

    name: str
    backend: str
    max_batch_size: int | None
    specs: EngineSpecs | None = None
    image: PictureInput | None = None
    task: Task | None = None
    latency_budget_ms: float | None = None
    device_kind: DeviceKind = DeviceKind.CPU
    groups: tuple[InstanceGroup, ...] = (InstanceGroup(),)
    part: Part = WHOLE
    batching: BatchingOptions = BatchingOptions()
    backend_options: Mapping[str, str] = field(default_factory=dict)
    model_filename: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels_file: tuple[str, ...] | None = None
    derived: Mapping[str, str] = field(default_factory=dict)
    question: str = ""
    warmup: tuple[WarmupSample, ...] = ()
    warnings: tuple[str, ...] = ()
    is_bare: bool = False
    is_folded: bool = False
    observed_rows: int = 0
    config: ModelConfig = field(default_factory=ModelConfig, compare=False)

    @property
    def config_name(self) -> str:
        """The configuration's name for messages, relative to the repository."""
        return config_name_of(self.name, is_bare=self.is_bare)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Of each version in this process, once placed."""
        return self.part.of(instances_of(self.groups, self.device_kind))

    @property
    def engine_options(self) -> dict[str, str]:
        """The backend's options without those that the service reads itself."""
        return {key: value for key, value in self.backend_options.items() if key != "policy"}
