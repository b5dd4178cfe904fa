"""Memory of a process, on the host by kind of memory and on the GPU."""

import subprocess
from collections import Counter
from pathlib import Path

NVIDIA_SMI_FOLDERS = ("/usr/bin", "/usr/local/nvidia/bin", "/bin")


def gpu_mib() -> float:
    """Return what all processes together hold of the first GPU, 0 where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used) / 2**20
    except Exception:  # noqa: BLE001 - not installed, or no driver: the tool answers or is not there either
        return _gpu_mib_of_tool()


def _gpu_mib_of_tool() -> float:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    if not any(Path(folder, "nvidia-smi").is_file() for folder in NVIDIA_SMI_FOLDERS):
        return 0.0
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603


def resident_by_kind(pid: int) -> dict[str, float]:
    """Return resident MiB of a process by kind of mapping: libraries, heap, anonymous, device files, other files."""
    kinds: Counter[str] = Counter()
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head, _, rest = line.partition(" ")
        if not head.endswith(":"):
            kind = _kind(rest.split(maxsplit=4)[4] if len(rest.split(maxsplit=4)) == 5 else "")
        elif head == "Rss:":
            kinds[kind] += int(rest.split()[0])
    return {kind: kib / 1024 for kind, kib in kinds.most_common() if kib}


def _kind(path: str) -> str:
    if not path:
        return "anonymous"
    if path.startswith("["):
        return path.strip("[]")
    if path.startswith("/dev/"):
        return "device files"
    return "libraries" if ".so" in path.rsplit("/", 1)[-1] else "other files"
