"""Every backend, in one table: its class, its options, and the names that a model repository has for it.

Values only, so that reading them imports no vendor library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Implementation:
    """The location of a class, and the hint for its missing library.

    Attributes:
        module: absolute name; imported at the first use.
        class_name: in the module.
        extra: of pyproject.toml that brings the library; empty if none does.
        install: command that brings it, where there is no extra.
    """

    module: str
    class_name: str
    extra: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One backend.

    Attributes:
        engine: its class, built with the keywords of `engines.open_engine`.
        options: names of its own settings, which a configuration gives as parameters.
        filenames: usual names of the model file, each of which implies the backend; empty: it needs no file.
        platform: Triton's word for it, which a configuration may give instead of the backend.
        aliases: other names of the backend that a configuration may give.
        gpus: whether its instances run on GPUs: never, if `instance_group` asks for KIND_GPU, or always.
        is_sendable: whether a client may send its files with a load: they cannot hold code.
    """

    engine: Implementation
    options: tuple[str, ...] = ()
    filenames: tuple[str, ...]
    platform: str
    aliases: tuple[str, ...] = ()
    gpus: Literal["never", "asked", "always"] = "never"
    is_sendable: bool = False


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "onnxruntime": Backend(
            engine=Implementation(
                "forebay_server.engines.engine_onnxruntime", "OnnxruntimeEngine", install="pip install onnxruntime"
            ),
            options=("intra_op_threads", "provider", "optional_inputs"),
            filenames=("model.onnx",),
            platform="onnxruntime_onnx",
            is_sendable=True,
        ),
        "tensorrt": Backend(
            engine=Implementation("forebay_server.engines.engine_tensorrt", "TensorrtEngine", extra="tensorrt"),
            options=("library", "cuda_graphs", "graph_sizes", "on_mismatch", "allow_host_code"),
            filenames=("model.plan",),
            platform="tensorrt_plan",
            gpus="always",
        ),
        "torch": Backend(
            engine=Implementation("forebay_server.engines.engine_torch", "TorchEngine", extra="torch"),
            options=("inputs", "outputs", "intra_op_threads", "cuda_graphs", "allow_tf32"),
            filenames=("model.pt2", "model.pt"),
            platform="pytorch_libtorch",
            aliases=("pytorch",),
            gpus="asked",
        ),
        "simulated": Backend(
            engine=Implementation("forebay_server.engines.engine_simulated", "SimulatedEngine"),
            options=(
                "alpha_ms",
                "beta_ms",
                "jitter_ms",
                "jitter_seed",
                "input_shape",
                "input_bytes",
                "datatype",
                "output",
                "max_batch_size",
                "fail_every",
                "hang_at",
            ),
            filenames=(),
            platform="simulated",
            is_sendable=True,
        ),
    }
)
"""Backend -> its row, in the order in which messages and pages list them."""
