"""Where a server process spends its CPU: per thread, from the kernel's books, and per function, by sampling.

The kernel knows threads by number. Their names in Python come from py-spy where it is installed; else the kernel's own
name stands, which for Python threads before 3.14 is that of the process.
"""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
SAMPLES_PER_S = 200
TIMEOUT_S = 60.0
_LINE = re.compile(r":\d+\)$")
_NUMBERED = re.compile(r"[-_ .]?\d+$")


def thread_cpu_s(pid: int) -> dict[int, float]:
    """Return CPU seconds, user and system, of every thread that lives now, in ticks of 10 ms."""
    seconds = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
    return seconds


def thread_names(pid: int) -> dict[int, str]:
    """Return what to call every thread."""
    names = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            names[int(folder.name)] = (folder / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return names | _python_names(pid)


def _python_names(pid: int) -> dict[int, str]:
    tool = py_spy()
    if tool is None:
        return {}
    command = [*tool, "dump", "--json", "--nonblocking", "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode != 0:
        return {}
    threads = json.loads(done.stdout)
    return {each["os_thread_id"]: each["thread_name"] or "python" for each in threads if each.get("os_thread_id")}


def grouped(seconds: Mapping[int, float], names: Mapping[int, str], least_s: float = 0.01) -> dict[str, float]:
    """Add up the CPU of threads of one kind, the busiest first."""
    sums: dict[str, float] = {}
    for thread, used_s in seconds.items():
        kind = _kind_of_thread(names.get(thread, "gone"))
        sums[kind] = sums.get(kind, 0.0) + used_s
    busiest = sorted(sums.items(), key=lambda each: -each[1])
    return {name: used_s for name, used_s in busiest if used_s >= least_s}


@contextmanager
def watched_threads(pid: int, names: Mapping[int, str]) -> Iterator[dict[str, float]]:
    """Yield a dict that holds, after the with-block, the CPU seconds of every kind of thread within it."""
    before, found = thread_cpu_s(pid), dict[str, float]()
    yield found
    after = thread_cpu_s(pid)
    found.update(grouped({thread: used - before.get(thread, 0.0) for thread, used in after.items()}, names))


def py_spy() -> list[str] | None:
    """Return how to call py-spy: on the PATH, or beside a package folder that was installed with --target."""
    found = shutil.which("py-spy")
    if found is not None:
        return [found]
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        tool = Path(folder, "bin", "py-spy")
        if folder and tool.is_file():
            return [str(tool)]
    return None


def start_sampling(pid: int, seconds: float, path: Path) -> "subprocess.Popen[bytes] | None":
    """Start noting which functions hold the interpreter, for so long; None where py-spy is not installed."""
    tool = py_spy()
    if tool is None:
        return None
    command = [*tool, "record", "--pid", str(pid), "--gil", "--threads", "--nonblocking", "--format", "raw"]
    command += ["--rate", str(SAMPLES_PER_S), "--duration", str(max(1, round(seconds))), "--output", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603


def hottest(path: Path, count: int = 25) -> list[dict[str, object]]:
    """Read collapsed stacks; return the functions that were on top most often, with thread, samples and share."""
    tops: Counter[tuple[str, str]] = Counter()
    for line in path.read_text().splitlines():
        stack, _, number = line.rpartition(" ")
        frames = stack.split(";")
        tops[_kind_of_thread(frames[0].rpartition(" ")[2]), _LINE.sub(")", frames[-1])] += int(number)
    total = tops.total() or 1
    return [
        {"thread": thread, "function": function, "samples": number, "share": number / total}
        for (thread, function), number in tops.most_common(count)
    ]


def _kind_of_thread(name: str) -> str:
    """Leave out the number of a worker, and the model, version and lane of a stage."""
    return _NUMBERED.sub("", name.rpartition(".")[2]) or "gone"
