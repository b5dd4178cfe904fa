"""Threads have the names that Python gives them also in the kernel."""

import threading
from pathlib import Path

from forebay_server.service.thread_name import name_this_thread


def name_within(name: str, tasks: Path = Path("/proc/self/task")) -> str:
    """Name a thread and return what the kernel calls it."""
    found: list[str] = []

    def run() -> None:
        name_this_thread(tasks)
        found.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip())

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(60)
    return found[0]


def test_a_short_name_is_kept() -> None:
    assert name_within("worker-3") == "worker-3"


def test_a_long_name_keeps_its_end_which_says_the_stage() -> None:
    assert name_within("pedestrians.12.0.execute") == "ns.12.0.execute"


def test_a_system_without_such_files_is_no_error(tmp_path: Path) -> None:
    assert name_within("worker-3", tmp_path / "none")  # from 3.14 on Python has named it
