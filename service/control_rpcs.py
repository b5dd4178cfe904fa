"""The control RPCs of a server whose models are in this process: all but inference.

Not in `assembly`: a front-end process imports that, and nothing that opens or loads models.

Thread: the event loop's.
"""

import math
from collections.abc import Callable

from forebay_server.service.assembly import ControlRpcs, StreamControl
from forebay_server.service.frontend.control.model import Handlers, ModelRpcs
from forebay_server.service.frontend.control.repository import RepositoryRpcs
from forebay_server.service.frontend.control.settings import SettingsRpcs
from forebay_server.service.frontend.control.statistics import StatisticsRpcs
from forebay_server.service.frontend.control.streams import StreamRpcs
from forebay_server.service.frontend.frames.servicer import FramesServicer
from forebay_server.service.frontend.memory.cuda import CudaMemoryRpcs
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.memory.system import SystemMemoryRpcs
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.servicer import InferenceServicer
from forebay_server.service.journal.streams import Why
from forebay_server.service.load.overload import Wish
from forebay_server.service.models.lifecycle import ModelLifecycle
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.settings import ServeSettings


def control_rpcs(
    settings: ServeSettings, registry: ModelRegistry, lifecycle: ModelLifecycle, is_ready: Callable[[], bool]
) -> ControlRpcs:
    """Return what makes the control RPCs of a server whose models are in this process.

    Args:
        settings: limits.
        registry: the models that serve.
        lifecycle: loads and unloads them.
        is_ready: whether the server is ready.
    """

    def make(lookup: ModelLookup, regions: ClientRegions) -> Handlers:
        groups = (
            RepositoryRpcs(lifecycle, allows_files=settings.allow_model_files),
            StatisticsRpcs(lookup, registry.all),
            SettingsRpcs(lookup),
            SystemMemoryRpcs(regions),
            CudaMemoryRpcs(regions),
        )
        return ModelRpcs(lookup, registry.versions, is_ready, *groups).methods()

    return make


def own_streams(settings: ServeSettings) -> StreamControl:
    """Return what makes the RPCs about the streams of a server whose streams are all in this process."""
    grace_ms = int(settings.drain_grace_s * 1000)

    def make(frames: FramesServicer, inference: InferenceServicer) -> StreamRpcs:
        def move(count: int) -> int:
            return frames.move(Wish(count, math.inf), grace_ms, Why.OPERATOR)

        return StreamRpcs(lambda: frames.listing(len(inference.streams)), move)

    return make
