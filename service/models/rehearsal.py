"""Rehearsals of loads: a separate process opens the model first, and is killed if that goes wrong.

Theory of operation
    Opening a model runs foreign code on a foreign file: it may not end, it may take all memory, it may crash. No thread
    can be ended from outside, but a process can. So the server starts a Python process (`rehearsed`), which opens the
    versions with the same options, runs every batch size and every sample of the warm-up, and sends a short answer.
    This side checks the process every `LOOK_S`: whether its time is up, its load is cancelled, or its memory is too
    large. In each of these cases the process is killed, and the model is not loaded.

    The process has its own session, none of the server's descriptors and little of its environment. The kernel kills it
    first when memory runs out, and it ends with the thread that waits for it.

Thread: any; one thread waits for one rehearsal. Blocks: until the process has ended.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import structlog

import forebay_server
from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.models.attempts import Attempt
from forebay_server.service.models.instances import WHOLE, Part
from forebay_server.service.models.memory import MIB, MemoryAccount
from forebay_server.service.models.repository import ModelEntry, RepositoryError

log = structlog.get_logger(__name__)

LOOK_S = 0.02  # at most 100 MB are touched in between: the kernel clears about 4 GB/s
END_TIMEOUT_S = 5.0  # after SIGKILL; it takes longer only if the kernel waits for a disk
OWN_BYTES = 1 << 30  # memory of the process itself: the interpreter, libraries, growth between two checks
LEAST_FREE_BYTES = 128 << 20  # of the machine or the container: below this the kernel begins to kill processes
MOST_ANSWER_BYTES = 1 << 16
MOST_WORDS_BYTES = 2048
FIRST_TO_GO = "1000"  # oom_score_adj: the kernel kills this process first when memory runs out
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "XDG_CACHE_HOME")
_PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "ORT_", "TORCH")
"""Variables that locate libraries and devices. The rest of the environment may contain secrets of the service."""


@dataclass(frozen=True, slots=True)
class RehearsalSettings:
    """Values that opening a model depends on beside its files; as in `VersionContext`."""

    engine_options: Mapping[str, Mapping[str, str]]
    permits: int
    cache_folder: Path | None
    cpu_fallback: bool
    part: Part = WHOLE


class Rehearsal:
    """See the module.

    Args:
        settings: the server's.
        account: gives the remaining memory.
        environment: os.environ.
    """

    def __init__(self, settings: RehearsalSettings, account: MemoryAccount, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._account = account
        self._environment = _environment(environment)

    def __call__(self, entry: ModelEntry, config: ModelConfig | None, kept: Sequence[str], attempt: Attempt) -> None:
        """Rehearse a load.

        Args:
            entry: the model's folder.
            config: instead of the one in the folder.
            kept: versions that serve already and stay.
            attempt: the time limit and the cancellation.

        Raises:
            RepositoryError: the model cannot be served, or its process ended otherwise; the message is for clients.
            LoadAbandonedError: not in time, or cancelled.
            DeviceMemoryError: the model takes more memory than is left.
        """
        limit_bytes = self._account.rehearsal_bytes()
        started_ns = attempt.clock.now_ns()
        order = self._order(entry, config, kept, limit_bytes)
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as words:
            given.write(json.dumps(order).encode())
            given.seek(0)
            process = self._start(given, answered, words)
            try:
                self._watch(process, attempt, limit_bytes)
            finally:
                _end(process)
            answer = _read(process.returncode, answered, words, entry.name)
        if "refusal" in answer:
            raise RepositoryError(answer["refusal"])
        seconds = round((attempt.clock.now_ns() - started_ns) / 1e9, 3)
        log.info("rehearsed", model=entry.name, seconds=seconds, memory_mib=round(answer["memory_bytes"] / MIB))

    def _order(
        self, entry: ModelEntry, config: ModelConfig | None, kept: Sequence[str], limit_bytes: int
    ) -> dict[str, Any]:
        settings = self._settings
        return {
            "parent_pid": os.getpid(),
            "part": [settings.part.index, settings.part.count],
            "root": str(entry.where),
            "name": entry.name,
            "config": None if config is None else base64.b64encode(config.SerializeToString()).decode(),
            "kept": list(kept),
            "memory_bytes": limit_bytes,
            "engine_options": {backend: dict(options) for backend, options in settings.engine_options.items()},
            "permits": settings.permits,
            "cache_folder": None if settings.cache_folder is None else str(settings.cache_folder),
            "cpu_fallback": settings.cpu_fallback,
        }

    def _start(self, given: IO[bytes], answered: IO[bytes], words: IO[bytes]) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "forebay_server.service.models.rehearsed"),
            stdin=given,
            stdout=answered,
            stderr=words,
            env=self._environment,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):  # not Linux, or the process has ended already
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(FIRST_TO_GO)
        return process

    def _watch(self, process: "subprocess.Popen[bytes]", attempt: Attempt, limit_bytes: int) -> None:
        """Return when the process has ended; raise if it must be killed."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
                return
            attempt.check()
            used_bytes = _resident_bytes(process.pid)
            if used_bytes > limit_bytes + OWN_BYTES or used_bytes > LEAST_FREE_BYTES > self._account.free():
                raise DeviceMemoryError(
                    f"{attempt.name}: needs more than {limit_bytes / MIB:.0f} MiB while it is loaded, and more is not "
                    "to be had: make it smaller, unload another model, or raise model_memory_bytes"
                )


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    found = {
        key: value for key, value in environment.items() if key in _PASSED_ON or key.startswith(_PASSED_ON_PREFIXES)
    }
    # With -P: the process runs this code, not a folder of the same name in its working directory.
    paths = [str(Path(forebay_server.__file__).parent.parent), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(paths)}


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # the process is ending
        return 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and all that it started, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.exception("a process that was killed does not end", pid=process.pid)


def _read(code: int | None, answered: IO[bytes], words: IO[bytes], name: str) -> dict[str, Any]:
    """Return the answer of the process. Raises RepositoryError if it ended without an answer."""
    answered.seek(0)
    try:
        answer = json.loads(answered.read(MOST_ANSWER_BYTES)) if code == 0 else {}
    except ValueError:
        answer = {}
    if isinstance(answer, dict) and ("refusal" in answer or "memory_bytes" in answer):
        return answer
    words.seek(0)
    text = answer.get("bug") or words.read(MOST_WORDS_BYTES).decode(errors="replace")
    log.error("the rehearsal of a load failed", model=name, exit_code=code, words=text)
    raise RepositoryError(f"{name}: {_how_it_ended(code)}")


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return "internal error; the server's log has the details"
    if -code == signal.SIGKILL:
        return "the system ended the process that loaded it, most likely for want of memory"
    return f"the process that loaded it crashed ({signal.Signals(-code).name}): its file may be broken"


_Rehearse = Callable[[ModelEntry, ModelConfig | None, Sequence[str], Attempt], None]


def _conforms(rehearsal: Rehearsal) -> _Rehearse:
    return rehearsal
