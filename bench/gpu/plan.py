"""The plan of one run of the GPU benchmarks, at full length on a GPU or as a dry run on a CPU."""

from dataclasses import dataclass, replace
from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "models"
MAX_ROWS = 32
"""Of the exported networks, and so of every batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module.

    Attributes:
        device: `cuda` or `cpu`; or `simulated`, which front_ends alone knows.
        out: folder of results, small files all of them.
        work: folder for large or temporary files: programs, repositories, payloads, whole traces.
        networks: names that `bench.gpu.networks.build` knows.
        batch_sizes: rows.
        seconds: of each measurement in the process.
        load_seconds: of each measurement over gRPC.
        camera_seconds: of each measurement with cameras.
        repeats: of each measurement over gRPC.
        cameras: numbers of cameras that send raw tensors.
        jpeg_cameras: numbers of cameras that send JPEG.
        crowds: numbers of cameras that several processes share.
        raw_crowds: numbers of cameras before front-end processes that send raw tensors.
        jpeg_crowds: the same for cameras that send JPEG.
        decode_cameras: the same where who decodes is compared.
        video_cameras: numbers of cameras before front-end processes that send H.264.
        processes: numbers of server processes on one GPU.
        front_ends: numbers of front-end processes; 0: one process for all.
        group_clients: client processes before front-end processes.
        warm_up_windows: that each of their streams sends before a closed loop, and twice as many to see its rate.
        group_seconds: of each closed loop before front-end processes; a shorter one is as long as its clients' start.
        group_camera_seconds: of each measurement with cameras there.
        long_seconds: of the first raw crowd before front-end processes.
        overloads: times the closed loop's rate that cameras of LATEST offer before front-end processes.
        start_rounds: of starting a group and one process by turns.
        batching_seconds: of traffic in each cell of the batching workloads.
        batching_runs: of each of those in real time.
        memory_seconds: of load while memory is watched.
        worker_count: client processes.
        window: frames in flight of each, where the section does not vary it.
        gpus: GPUs to spread over, in the section of that name.
    """

    device: str
    out: Path
    work: Path
    networks: tuple[str, ...] = ("detector", "detector_fp16", "resnet50")
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds: float = 0.8
    load_seconds: float = 1.5
    camera_seconds: float = 4.0
    repeats: int = 3
    cameras: tuple[int, ...] = (1, 4, 16, 32, 64)
    jpeg_cameras: tuple[int, ...] = (1, 16, 32, 64)
    crowds: tuple[int, ...] = (32, 64)
    raw_crowds: tuple[int, ...] = (64, 96, 128, 192)
    jpeg_crowds: tuple[int, ...] = (40, 60, 80)
    decode_cameras: tuple[int, ...] = (64, 128)
    video_cameras: tuple[int, ...] = (64, 128, 256)
    processes: tuple[int, ...] = (1, 2, 4)
    front_ends: tuple[int, ...] = (0, 5)
    group_clients: int = 8
    warm_up_windows: int = 50
    group_seconds: float = 5.0
    group_camera_seconds: float = 10.0
    long_seconds: float = 66.0  # a minute after the warm-up
    overloads: tuple[float, ...] = (1.5, 2.0)
    start_rounds: int = 2
    batching_seconds: float = 1.5
    batching_runs: int = 3
    memory_seconds: float = 300.0
    worker_count: int = 4
    window: int = 12
    gpus: int = 1

    @classmethod
    def dry(cls, device: str, out: Path, work: Path) -> "Plan":
        """Return a short run that shows that everything works, and nothing else."""
        return cls(
            device,
            out,
            work,
            networks=("detector",),
            batch_sizes=(1, 2),
            seconds=0.2,
            load_seconds=1.0,
            camera_seconds=1.0,
            repeats=2,
            cameras=(1, 2),
            jpeg_cameras=(1,),
            crowds=(2,),
            raw_crowds=(2,),
            jpeg_crowds=(1,),
            decode_cameras=(1,),
            video_cameras=(1,),
            processes=(1, 2),
            front_ends=(0, 1),
            group_clients=2,
            warm_up_windows=2,
            group_seconds=1.0,
            group_camera_seconds=1.0,
            long_seconds=1.0,
            overloads=(1.5,),
            start_rounds=1,
            batching_seconds=0.3,
            batching_runs=1,
            memory_seconds=6.0,
            worker_count=2,
            window=2,
        )

    @classmethod
    def simulated(cls, out: Path, work: Path) -> "Plan":
        """Return a dry run whose networks are simulated: it needs neither torch nor ONNX Runtime."""
        dry = cls.dry("simulated", out, work)
        return replace(
            dry, networks=("detector_fp16", "resnet50"), jpeg_crowds=(), group_camera_seconds=3.0, long_seconds=4.0
        )

    @property
    def detector(self) -> str:
        """The detector that is served: the faster one where both are there."""
        return "detector_fp16" if "detector_fp16" in self.networks else "detector"

    @property
    def for_cameras(self) -> "Plan":
        """Return the same with each load once and for longer: cameras by the second are repeats of their own."""
        return replace(self, load_seconds=self.camera_seconds, repeats=1)

    def path(self, network: str) -> Path:
        """Export a network once, and return its file."""
        path = self.work / "programs" / network / "model.pt2"
        if not path.is_file():
            from forebay_server.bench.gpu.networks import export

            export(network, MODELS, path, MAX_ROWS)
        return path
