"""What one run of the GPU benchmarks does, at full length on a GPU or as a dry run on a CPU."""

from dataclasses import dataclass
from pathlib import Path

from bench.gpu.networks import MAX_ROWS, export

MODELS = Path(__file__).resolve().parents[2] / "models"


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module.

    Attributes:
        device: `cuda` or `cpu`.
        out: folder of results.
        networks: names that `bench.gpu.networks.build` knows.
        batch_sizes: rows.
        seconds: of each measurement in the process.
        load_seconds: of each measurement over gRPC.
        cameras: numbers of cameras.
        memory_seconds: of load while memory is watched.
        worker_count: client processes.
    """

    device: str
    out: Path
    networks: tuple[str, ...] = ("detector", "detector_fp16", "resnet50")
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds: float = 1.5
    load_seconds: float = 4.0
    cameras: tuple[int, ...] = (1, 4, 16, 32, 64)
    memory_seconds: float = 150.0
    worker_count: int = 4

    @classmethod
    def dry(cls, device: str, out: Path) -> "Plan":
        """Return a short run that shows that everything works, and nothing else."""
        return cls(device, out, ("detector",), (1, 2), 0.2, 1.0, (1, 2), 4.0, 2)

    def path(self, network: str) -> Path:
        """Export a network once, and return its file."""
        path = self.out / "programs" / network / "model.pt2"
        return path if path.is_file() else export(network, MODELS, path, MAX_ROWS)
